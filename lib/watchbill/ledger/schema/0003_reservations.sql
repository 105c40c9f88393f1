-- Money is reserved by the set: a firing's worst case, in every unit, against every cap, is one grant and one event.

DROP TRIGGER reservation_above_the_cap;
DROP TRIGGER reservation_made;
DROP TRIGGER reservation_settled;
DROP TRIGGER reservation_settled_once;
DROP TRIGGER reservation_event;
DROP TRIGGER settlement_event;
DROP INDEX one_open_reservation;
DROP INDEX reservations_of_a_firing;
DROP INDEX open_reservations;
ALTER TABLE reservations RENAME TO reservations_before;

-- What a firing was allowed to spend, as a whole: open until it is settled, once.
CREATE TABLE grants (
  firing     TEXT NOT NULL,
  try        INTEGER NOT NULL,          -- a firing that lost its first issue reserves anew for the next
  at         INTEGER NOT NULL,
  settled_at INTEGER,                   -- NULL: open
  basis      TEXT,                      -- where the figures come from: engine | priced | ceiling | reservation | ...
  usd        INTEGER CHECK (usd >= 0),  -- micro-dollars
  tokens     INTEGER CHECK (tokens >= 0),
  turns      INTEGER CHECK (turns >= 0),
  firings    INTEGER CHECK (firings >= 0),
  PRIMARY KEY (firing, try),
  CHECK ((settled_at IS NULL) = (basis IS NULL) AND (settled_at IS NULL) = (usd IS NULL)
     AND (settled_at IS NULL) = (tokens IS NULL) AND (settled_at IS NULL) = (turns IS NULL)
     AND (settled_at IS NULL) = (firings IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_open_grant ON grants (firing) WHERE settled_at IS NULL;

-- The same, cap by cap. A row without a cap that reserves nothing is there so that what is spent is counted.
CREATE TABLE reservations (
  firing   TEXT NOT NULL,
  try      INTEGER NOT NULL,
  unit     TEXT NOT NULL,               -- usd | tokens | turns | firings
  scope    TEXT NOT NULL,               -- firing | issue | day | fleet_day | fleet_month
  subject  TEXT NOT NULL,               -- whose: the firing, the issue, the agent, the fleet
  period   TEXT NOT NULL,               -- the cap's day or month, in the fleet's time zone; '' for ever
  cap      INTEGER,                     -- NULL: no cap, only counted
  reserved INTEGER NOT NULL CHECK (reserved >= 0),
  settled  INTEGER CHECK (settled >= 0),
  basis    TEXT,
  PRIMARY KEY (firing, try, unit, scope)
) STRICT, WITHOUT ROWID;

INSERT INTO reservations (firing, try, unit, scope, subject, period, cap, reserved, settled, basis)
SELECT firing, row_number() OVER (PARTITION BY firing, unit, scope ORDER BY id),
       unit, scope, subject, period, cap, reserved, settled, basis
FROM reservations_before;

INSERT INTO grants (firing, try, at, settled_at, basis, usd, tokens, turns, firings)
SELECT tries.firing, tries.try, tries.at,
       CASE WHEN tries.open = 0 THEN tries.settled_at END, CASE WHEN tries.open = 0 THEN tries.basis END,
       CASE WHEN tries.open = 0 THEN tries.usd END, CASE WHEN tries.open = 0 THEN tries.tokens END,
       CASE WHEN tries.open = 0 THEN tries.turns END, CASE WHEN tries.open = 0 THEN tries.firings END
FROM (
  SELECT firing, try, MIN(at) AS at, SUM(settled IS NULL) AS open, MAX(settled_at) AS settled_at,
         COALESCE(MAX(CASE WHEN unit = 'usd' THEN basis END), MAX(basis), '') AS basis,
         COALESCE(MAX(CASE WHEN unit = 'usd' THEN settled END), 0) AS usd,
         COALESCE(MAX(CASE WHEN unit = 'tokens' THEN settled END), 0) AS tokens,
         COALESCE(MAX(CASE WHEN unit = 'turns' THEN settled END), 0) AS turns,
         COALESCE(MAX(CASE WHEN unit = 'firings' THEN settled END), 0) AS firings
  FROM (SELECT firing, row_number() OVER (PARTITION BY firing, unit, scope ORDER BY id) AS try, unit, settled, basis,
               at, settled_at
        FROM reservations_before)
  GROUP BY firing, try
) AS tries;

DROP TABLE reservations_before;
DELETE FROM spend WHERE scope = 'firing'; -- one firing's own rows say it; nothing ever summed them
-- The two sums once more: what a flipped bit in this row is told by.
ALTER TABLE spend ADD COLUMN echo INTEGER NOT NULL DEFAULT 0;
UPDATE spend SET echo = settled + 3 * reserved;

CREATE TRIGGER reservation_above_the_cap BEFORE INSERT ON reservations WHEN NEW.cap IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'above the cap') WHERE NEW.reserved > NEW.cap;
  SELECT CASE WHEN echo <> settled + 3 * reserved THEN RAISE(ABORT, 'spend row damaged')
              WHEN settled + reserved + NEW.reserved > NEW.cap THEN RAISE(ABORT, 'above the cap') END
  FROM spend WHERE scope = NEW.scope AND subject = NEW.subject AND period = NEW.period AND unit = NEW.unit;
END;
CREATE TRIGGER reservation_made AFTER INSERT ON reservations WHEN NEW.reserved > 0 AND NEW.scope <> 'firing'
BEGIN
  INSERT INTO spend (scope, subject, period, unit, reserved, echo)
  VALUES (NEW.scope, NEW.subject, NEW.period, NEW.unit, NEW.reserved, 3 * NEW.reserved)
  ON CONFLICT (scope, subject, period, unit)
  DO UPDATE SET reserved = reserved + excluded.reserved, echo = echo + excluded.echo;
END;
-- Inserted after its reservations: [scope, subject, period, unit, cap, reserved] of every one that counts.
CREATE TRIGGER grant_made AFTER INSERT ON grants
BEGIN
  INSERT INTO events (at, kind, subject, body)
  SELECT NEW.at, 'reserved', NEW.firing, json_object('try', NEW.try, 'caps',
    json_group_array(json_array(scope, subject, period, unit, cap, reserved)))
  FROM reservations
  WHERE firing = NEW.firing AND try = NEW.try AND (cap IS NOT NULL OR reserved > 0);
END;
CREATE TRIGGER grant_settles_once BEFORE UPDATE ON grants WHEN OLD.settled_at IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'already settled');
END;
CREATE TRIGGER grant_settled AFTER UPDATE OF settled_at ON grants WHEN NEW.settled_at IS NOT NULL
BEGIN
  UPDATE reservations SET basis = NEW.basis, settled = CASE unit
    WHEN 'usd' THEN NEW.usd WHEN 'tokens' THEN NEW.tokens WHEN 'turns' THEN NEW.turns ELSE NEW.firings END
  WHERE firing = NEW.firing AND try = NEW.try AND settled IS NULL;
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.settled_at, 'settled', NEW.firing, json_object('try', NEW.try,
    'usd', NEW.usd, 'tokens', NEW.tokens, 'turns', NEW.turns, 'firings', NEW.firings, 'basis', NEW.basis));
END;
CREATE TRIGGER reservation_settled AFTER UPDATE OF settled ON reservations
WHEN OLD.settled IS NULL AND NEW.scope <> 'firing' AND OLD.reserved + NEW.settled > 0
BEGIN
  INSERT INTO spend (scope, subject, period, unit, settled, reserved, echo)
  VALUES (NEW.scope, NEW.subject, NEW.period, NEW.unit, NEW.settled, -OLD.reserved, NEW.settled - 3 * OLD.reserved)
  ON CONFLICT (scope, subject, period, unit) DO UPDATE
  SET settled = settled + excluded.settled, reserved = reserved + excluded.reserved, echo = echo + excluded.echo;
END;
CREATE TRIGGER reservation_settled_once BEFORE UPDATE OF settled ON reservations WHEN OLD.settled IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'already settled');
END;
