-- What lets history be pruned, what is carried over when it is, and what tells a hold that was lost from one that ended.

-- Stands for the events up to `seq`, which may then be deleted; the chain is walked from the newest one on.
CREATE TABLE anchors (
  seq    INTEGER PRIMARY KEY,           -- the last event it stands for
  hash   TEXT NOT NULL,                 -- that event's hash, which the next event's hash covers
  at     INTEGER NOT NULL,
  before INTEGER NOT NULL,              -- every event of that time or later is still there
  count  INTEGER NOT NULL,              -- how many events it replaces
  who    TEXT NOT NULL
) STRICT;
CREATE TRIGGER anchor_stands_for_an_event BEFORE INSERT ON anchors
BEGIN
  SELECT RAISE(ABORT, 'no such event') WHERE NOT EXISTS (
    SELECT 1 FROM events WHERE seq = NEW.seq AND hash = NEW.hash);
  SELECT RAISE(ABORT, 'anchors only move on') WHERE EXISTS (SELECT 1 FROM anchors WHERE seq >= NEW.seq);
END;
CREATE TRIGGER anchor_event AFTER INSERT ON anchors
BEGIN
  INSERT INTO events (at, kind, subject, body) VALUES (NEW.at, 'anchored', NEW.who,
    json_object('seq', NEW.seq, 'hash', NEW.hash, 'before', NEW.before, 'count', NEW.count));
END;
CREATE TRIGGER anchors_are_not_changed BEFORE UPDATE ON anchors
BEGIN
  SELECT RAISE(ABORT, 'anchors are append-only');
END;
CREATE TRIGGER anchors_are_not_deleted BEFORE DELETE ON anchors
BEGIN
  SELECT RAISE(ABORT, 'anchors are append-only');
END;
DROP TRIGGER events_are_not_deleted;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
  WHEN NOT EXISTS (SELECT 1 FROM anchors WHERE seq >= OLD.seq)
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;

-- What pruned reservations had settled: spend = this + the reservations that are still there.
CREATE TABLE spend_carried (
  scope   TEXT NOT NULL,
  subject TEXT NOT NULL,
  period  TEXT NOT NULL,
  unit    TEXT NOT NULL,
  settled INTEGER NOT NULL,
  PRIMARY KEY (scope, subject, period, unit)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER reservation_pruned AFTER DELETE ON reservations WHEN OLD.settled > 0 AND OLD.scope <> 'firing'
BEGIN
  INSERT INTO spend_carried (scope, subject, period, unit, settled)
  VALUES (OLD.scope, OLD.subject, OLD.period, OLD.unit, OLD.settled)
  ON CONFLICT (scope, subject, period, unit) DO UPDATE SET settled = settled + excluded.settled;
END;

-- A digest of the holds that stood when the last of them was written; see ledger/seal.py.
CREATE TABLE seals (
  name   TEXT PRIMARY KEY,
  since  INTEGER NOT NULL,              -- by the clock of whoever wrote it
  digest TEXT                           -- NULL: not sealed, as after a change by hand
) STRICT, WITHOUT ROWID;
INSERT INTO seals VALUES ('holds', 0, NULL);
CREATE TRIGGER hold_written AFTER INSERT ON holds
BEGIN
  UPDATE seals SET digest = NULL WHERE name = 'holds';
END;
CREATE TRIGGER hold_changed AFTER UPDATE ON holds
BEGIN
  UPDATE seals SET digest = NULL WHERE name = 'holds';
END;
CREATE TRIGGER hold_deleted AFTER DELETE ON holds
BEGIN
  UPDATE seals SET digest = NULL WHERE name = 'holds';
END;

-- Whether anything still names the bytes of a blob.
CREATE INDEX evidence_of_bytes ON evidence (digest);
CREATE INDEX base_checks_of_bytes ON base_checks (digest);
