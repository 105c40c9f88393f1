-- The tables a firing needs, and what the database itself refuses (DESIGN section 7).
-- Times are UTC epoch seconds unless the name says _ms; money is micro-dollars.

CREATE TABLE migrations (
  number  INTEGER PRIMARY KEY,
  name    TEXT NOT NULL,
  digest  TEXT NOT NULL,
  at      INTEGER NOT NULL
) STRICT;

CREATE TABLE firings (
  id           TEXT PRIMARY KEY,
  agent        TEXT NOT NULL,
  role         TEXT NOT NULL,
  host         TEXT NOT NULL,
  boot         TEXT NOT NULL,
  pid          INTEGER NOT NULL,
  pid_started  INTEGER NOT NULL,
  due          INTEGER,
  started      INTEGER NOT NULL,
  ended        INTEGER,
  outcome      TEXT,
  exit         INTEGER,
  reason       TEXT,
  reason_id    TEXT,
  config       TEXT NOT NULL,           -- digest of the roster it ran under
  repo_id      INTEGER,
  repo         TEXT,
  number       INTEGER,
  pull_request INTEGER,
  branch       TEXT,
  generation   INTEGER,
  cost_micro   INTEGER,
  cost_basis   TEXT,
  CHECK ((ended IS NULL) = (outcome IS NULL))
) STRICT;
CREATE UNIQUE INDEX one_live_firing_of_an_agent ON firings (host, agent) WHERE ended IS NULL;
CREATE INDEX firings_of_an_agent ON firings (agent, id);
CREATE INDEX firings_of_an_issue ON firings (repo, number, started) WHERE number IS NOT NULL;

CREATE TABLE steps (
  firing      TEXT NOT NULL,
  ordinal     INTEGER NOT NULL,
  name        TEXT NOT NULL,
  started_ms  INTEGER NOT NULL,
  duration_ms INTEGER,                  -- NULL: still in it, or died in it
  verdict     TEXT,                     -- ok | ended | failed
  detail      TEXT,
  PRIMARY KEY (firing, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE decisions (
  id        INTEGER PRIMARY KEY,
  firing    TEXT NOT NULL,
  at        INTEGER NOT NULL,
  step      TEXT NOT NULL,              -- gates | look | reserve | claim | ...
  subject   TEXT NOT NULL,              -- a gate's name, or acme/api#41
  verdict   TEXT NOT NULL,              -- pass | refuse | take | skip | lost
  reason_id TEXT NOT NULL,
  reason    TEXT NOT NULL,
  numbers   TEXT NOT NULL               -- JSON
) STRICT;
CREATE INDEX decisions_of_a_firing ON decisions (firing);
CREATE INDEX decisions_on_a_subject ON decisions (subject, at);

CREATE TABLE claims (
  id         INTEGER PRIMARY KEY,
  repo_id    INTEGER NOT NULL,
  repo       TEXT NOT NULL,
  number     INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  firing     TEXT NOT NULL,
  host       TEXT NOT NULL,
  intended   TEXT NOT NULL,             -- commit id of the claim we mean to push; written before the push
  tip        TEXT,                      -- the claim ref as we last moved it
  record     TEXT NOT NULL DEFAULT 'active', -- state of the record at tip: active | published | pr | released
  state      TEXT NOT NULL CHECK (state IN ('intended', 'won', 'lost', 'superseded', 'ended')),
  won_at     INTEGER,
  ended_at   INTEGER,
  CHECK (state NOT IN ('won') OR (won_at IS NOT NULL AND tip IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX one_live_claim_on_an_issue ON claims (repo_id, number) WHERE state IN ('intended', 'won');
CREATE UNIQUE INDEX one_winner_of_a_generation ON claims (repo_id, number, generation) WHERE won_at IS NOT NULL;
CREATE INDEX live_claims_of_a_host ON claims (host, id) WHERE state IN ('intended', 'won');
CREATE INDEX claims_of_a_firing ON claims (firing);
CREATE TRIGGER generations_never_shrink BEFORE UPDATE OF won_at ON claims WHEN NEW.won_at IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'generation shrinks') WHERE EXISTS (
    SELECT 1 FROM claims WHERE repo_id = NEW.repo_id AND number = NEW.number AND won_at IS NOT NULL
      AND generation > NEW.generation AND id <> NEW.id);
END;

CREATE TABLE sightings (
  repo_id       INTEGER NOT NULL,
  number        INTEGER NOT NULL,
  tip           TEXT NOT NULL,
  first_seen_ms INTEGER NOT NULL,       -- this host's clock that counts sleep, not the time of day
  boot          TEXT NOT NULL,
  PRIMARY KEY (repo_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE effects (
  id          INTEGER PRIMARY KEY,
  key         TEXT NOT NULL UNIQUE,     -- repository id / number / generation / kind / ordinal
  firing      TEXT NOT NULL,
  kind        TEXT NOT NULL,
  intent      TEXT NOT NULL,            -- JSON: what will be done
  intended_at INTEGER NOT NULL,
  receipt     TEXT,                     -- JSON: what the outside answered, or what was found there
  received_at INTEGER
) STRICT;
CREATE INDEX effects_of_a_firing ON effects (firing);

CREATE TABLE reservations (
  id         INTEGER PRIMARY KEY,
  firing     TEXT NOT NULL,
  scope      TEXT NOT NULL,             -- firing | issue | day | fleet_day | fleet_month
  subject    TEXT NOT NULL,             -- whose: the firing, the issue, the agent, the fleet
  period     TEXT NOT NULL,             -- the cap's day or month, in the fleet's time zone; '' for ever
  unit       TEXT NOT NULL,             -- usd | tokens | turns | firings
  cap        INTEGER,                   -- NULL: no cap, only counted
  reserved   INTEGER NOT NULL CHECK (reserved >= 0),
  settled    INTEGER CHECK (settled >= 0),
  basis      TEXT,
  at         INTEGER NOT NULL,
  settled_at INTEGER
) STRICT;
CREATE UNIQUE INDEX one_open_reservation ON reservations (firing, scope, subject, unit) WHERE settled IS NULL;
CREATE INDEX reservations_of_a_firing ON reservations (firing);
CREATE INDEX open_reservations ON reservations (firing) WHERE settled IS NULL;

-- One row a (scope, subject, period, unit), moved in the same transaction: a gate never sums history.
CREATE TABLE spend (
  scope    TEXT NOT NULL,
  subject  TEXT NOT NULL,
  period   TEXT NOT NULL,
  unit     TEXT NOT NULL,
  settled  INTEGER NOT NULL DEFAULT 0,
  reserved INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (scope, subject, period, unit)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER reservation_above_the_cap BEFORE INSERT ON reservations WHEN NEW.cap IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'above the cap') WHERE NEW.reserved + COALESCE((
    SELECT settled + reserved FROM spend
    WHERE scope = NEW.scope AND subject = NEW.subject AND period = NEW.period AND unit = NEW.unit), 0) > NEW.cap;
END;
CREATE TRIGGER reservation_made AFTER INSERT ON reservations
BEGIN
  INSERT INTO spend (scope, subject, period, unit, reserved)
  VALUES (NEW.scope, NEW.subject, NEW.period, NEW.unit, NEW.reserved)
  ON CONFLICT (scope, subject, period, unit) DO UPDATE SET reserved = reserved + excluded.reserved;
END;
CREATE TRIGGER reservation_settled AFTER UPDATE OF settled ON reservations WHEN OLD.settled IS NULL
BEGIN
  UPDATE spend SET reserved = reserved - OLD.reserved, settled = settled + NEW.settled
  WHERE scope = NEW.scope AND subject = NEW.subject AND period = NEW.period AND unit = NEW.unit;
END;
CREATE TRIGGER reservation_settled_once BEFORE UPDATE OF settled ON reservations WHEN OLD.settled IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'already settled');
END;

CREATE TABLE holds (
  id        INTEGER PRIMARY KEY,
  scope     TEXT NOT NULL CHECK (scope IN
              ('fleet', 'host', 'repo', 'issue', 'agent', 'role', 'engine', 'account', 'model', 'github')),
  subject   TEXT NOT NULL,              -- '' for the whole fleet
  kind      TEXT NOT NULL,              -- pause | stop | rate_limit | base_red | breaker | ...
  reason    TEXT NOT NULL,
  author    TEXT NOT NULL,
  since     INTEGER NOT NULL,
  until     INTEGER,                    -- NULL: until somebody lifts it
  evidence  TEXT,
  lifted_at INTEGER,
  lifted_by TEXT
) STRICT;
CREATE INDEX standing_holds ON holds (id) WHERE lifted_at IS NULL;

CREATE TABLE evidence (
  id      INTEGER PRIMARY KEY,
  firing  TEXT NOT NULL,
  kind    TEXT NOT NULL,                -- diff | check | base_check | cost | transcript | kept | scan | brief
  digest  TEXT NOT NULL,                -- sha256 of the bytes, which lie in blobs/
  size    INTEGER NOT NULL,
  summary TEXT NOT NULL,                -- JSON
  at      INTEGER NOT NULL
) STRICT;
CREATE INDEX evidence_of_a_firing ON evidence (firing);

CREATE TABLE attempts (
  role    TEXT NOT NULL,
  target  TEXT NOT NULL,                -- repository id # number
  digest  TEXT NOT NULL,                -- of what it was asked to do
  count   INTEGER NOT NULL,
  next_at INTEGER NOT NULL,
  PRIMARY KEY (role, target, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE base_checks (
  base    TEXT NOT NULL,                -- commit id
  command TEXT NOT NULL,
  exit    INTEGER NOT NULL,
  digest  TEXT NOT NULL,                -- evidence blob with the output
  at      INTEGER NOT NULL,
  PRIMARY KEY (base, command)
) STRICT, WITHOUT ROWID;

CREATE TABLE polls (
  query            TEXT PRIMARY KEY,    -- "issues acme/api agent:implement", "facts acme/api", "claims acme/api"
  validator        TEXT,
  fetched_ms       INTEGER NOT NULL DEFAULT 0,  -- when the asking began
  body             TEXT,
  refreshing_by    TEXT,
  refreshing_until INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX polls_in_hand ON polls (refreshing_by) WHERE refreshing_by IS NOT NULL;

-- Append-only history. Triggers write the rows; the transaction fills their hashes before it commits.
CREATE TABLE events (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  at      INTEGER NOT NULL,
  kind    TEXT NOT NULL,
  subject TEXT NOT NULL,
  body    TEXT NOT NULL,
  hash    TEXT
) STRICT;
CREATE INDEX events_without_hash ON events (seq) WHERE hash IS NULL;
CREATE INDEX events_on_a_subject ON events (subject, seq);
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
  WHEN OLD.hash IS NOT NULL OR NEW.seq IS NOT OLD.seq OR NEW.at IS NOT OLD.at OR NEW.kind IS NOT OLD.kind
    OR NEW.subject IS NOT OLD.subject OR NEW.body IS NOT OLD.body
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER firing_written AFTER INSERT ON firings
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.started,
    CASE WHEN NEW.outcome IS NULL THEN 'firing started' ELSE 'firing refused' END, NEW.id,
    json_object('agent', NEW.agent, 'host', NEW.host, 'outcome', NEW.outcome, 'reason', NEW.reason));
END;
CREATE TRIGGER firing_ended AFTER UPDATE OF outcome ON firings WHEN OLD.outcome IS NULL
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.ended, 'firing ended', NEW.id,
    json_object('agent', NEW.agent, 'outcome', NEW.outcome, 'reason', NEW.reason, 'cost_micro', NEW.cost_micro));
END;
CREATE TRIGGER firing_ends_once BEFORE UPDATE OF outcome ON firings WHEN OLD.outcome IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'the firing has ended');
END;
CREATE TRIGGER claim_intended AFTER INSERT ON claims
BEGIN
  INSERT INTO events (at, kind, subject, body)
  SELECT firings.started, 'claim intended', NEW.repo || '#' || NEW.number,
    json_object('firing', NEW.firing, 'generation', NEW.generation, 'intended', NEW.intended)
  FROM firings WHERE firings.id = NEW.firing;
END;
CREATE TRIGGER claim_moved AFTER UPDATE OF state, record, tip ON claims
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (COALESCE(NEW.ended_at, NEW.won_at, 0),
    'claim ' || NEW.state, NEW.repo || '#' || NEW.number,
    json_object('firing', NEW.firing, 'generation', NEW.generation, 'record', NEW.record, 'tip', NEW.tip));
END;
CREATE TRIGGER effect_intended AFTER INSERT ON effects
BEGIN
  INSERT INTO events (at, kind, subject, body)
  VALUES (NEW.intended_at, 'effect intended', NEW.key, json_object('firing', NEW.firing, 'intent', NEW.intent));
END;
CREATE TRIGGER effect_received AFTER UPDATE OF receipt ON effects
BEGIN
  INSERT INTO events (at, kind, subject, body)
  VALUES (NEW.received_at, 'effect received', NEW.key, json_object('firing', NEW.firing, 'receipt', NEW.receipt));
END;
CREATE TRIGGER reservation_event AFTER INSERT ON reservations
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.at, 'reserved', NEW.firing, json_object(
    'scope', NEW.scope, 'of', NEW.subject, 'unit', NEW.unit, 'reserved', NEW.reserved, 'cap', NEW.cap));
END;
CREATE TRIGGER settlement_event AFTER UPDATE OF settled ON reservations WHEN OLD.settled IS NULL
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.settled_at, 'settled', NEW.firing, json_object(
    'scope', NEW.scope, 'of', NEW.subject, 'unit', NEW.unit, 'settled', NEW.settled, 'basis', NEW.basis));
END;
CREATE TRIGGER hold_event AFTER INSERT ON holds
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.since, 'hold', NEW.scope || ':' || NEW.subject,
    json_object('id', NEW.id, 'kind', NEW.kind, 'reason', NEW.reason, 'author', NEW.author, 'until', NEW.until));
END;
CREATE TRIGGER hold_lifted_event AFTER UPDATE OF lifted_at ON holds WHEN OLD.lifted_at IS NULL
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.lifted_at, 'hold lifted', NEW.scope || ':' || NEW.subject,
    json_object('id', NEW.id, 'by', NEW.lifted_by));
END;
CREATE TRIGGER evidence_event AFTER INSERT ON evidence
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.at, 'evidence', NEW.firing,
    json_object('kind', NEW.kind, 'digest', NEW.digest, 'size', NEW.size));
END;
