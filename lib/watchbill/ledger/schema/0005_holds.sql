-- Holds that heal by themselves, and what a firing ran on and used.

-- A hold that heals: after `until` one firing, its canary, goes first; it lifts the hold, or the hold lasts longer.
ALTER TABLE holds ADD COLUMN heals INTEGER NOT NULL DEFAULT 0;
ALTER TABLE holds ADD COLUMN strikes INTEGER NOT NULL DEFAULT 1;  -- how often in a row: what the growing wait goes by
ALTER TABLE holds ADD COLUMN canary TEXT;                         -- the firing that goes first
ALTER TABLE holds ADD COLUMN canary_until INTEGER;                -- from then on another may take its place
ALTER TABLE holds ADD COLUMN eases_until INTEGER;                 -- healed: until then agents are let in one by one

DROP INDEX standing_holds;
CREATE INDEX open_holds ON holds (until) WHERE lifted_at IS NULL;
CREATE INDEX healing_holds ON holds (until) WHERE lifted_at IS NULL AND heals = 1;
CREATE INDEX easing_holds ON holds (eases_until) WHERE eases_until IS NOT NULL;
CREATE INDEX holds_of_a_canary ON holds (canary) WHERE canary IS NOT NULL;
-- Two that hit the same limit at once have hit one limit.
CREATE UNIQUE INDEX one_healing_hold ON holds (scope, subject, kind) WHERE lifted_at IS NULL AND heals = 1;
CREATE TRIGGER hold_lengthened_event AFTER UPDATE OF until ON holds WHEN NEW.until IS NOT OLD.until
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.since, 'hold lengthened', NEW.scope || ':' || NEW.subject,
    json_object('id', NEW.id, 'until', NEW.until, 'strikes', NEW.strikes, 'reason', NEW.reason));
END;

-- How many firings in a row went wrong: what the breaker goes by.
CREATE TABLE streaks (
  scope   TEXT NOT NULL,                -- agent | issue
  subject TEXT NOT NULL,
  failures INTEGER NOT NULL,
  PRIMARY KEY (scope, subject)
) STRICT, WITHOUT ROWID;

-- How full a subscription's window was when an engine last said so.
CREATE TABLE windows (
  account   TEXT NOT NULL,
  name      TEXT NOT NULL,              -- the provider's: five_hour, seven_day, ...
  used_ppm  INTEGER NOT NULL,           -- parts per million
  resets_at INTEGER NOT NULL,
  seen_at   INTEGER NOT NULL,
  PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;

-- What a run had used when last heard: bills a firing that is killed.
CREATE TABLE meters (
  firing     TEXT PRIMARY KEY,
  cost_micro INTEGER,                   -- NULL: not known yet
  tokens     INTEGER NOT NULL,
  turns      INTEGER NOT NULL,
  basis      TEXT NOT NULL,             -- engine | priced | ceiling | ...
  at         INTEGER NOT NULL,
  final      INTEGER NOT NULL           -- 1: the run has ended, and this is what it is charged
) STRICT, WITHOUT ROWID;

ALTER TABLE firings ADD COLUMN engine TEXT;    -- what it ran on: `use` of the engine map, or its fallback
ALTER TABLE firings ADD COLUMN account TEXT;   -- whose quota that draws on
ALTER TABLE firings ADD COLUMN model TEXT;
ALTER TABLE firings ADD COLUMN tokens INTEGER; -- input and output
ALTER TABLE firings ADD COLUMN turns INTEGER;
-- What was spent before this was recorded.
UPDATE firings SET engine = '?' WHERE cost_micro IS NOT NULL AND cost_basis <> 'not started';
-- What `spend` reads: only firings whose engine started, by time.
CREATE INDEX firings_that_spent ON firings (started) WHERE engine IS NOT NULL;
