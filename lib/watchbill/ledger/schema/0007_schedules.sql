-- Agents whose timer is silent: one row an episode, written by whoever notices first.
CREATE TABLE overdue (
  agent      TEXT NOT NULL,
  host       TEXT NOT NULL,
  slot       INTEGER NOT NULL,           -- the first that passed without a firing, UTC epoch seconds
  noticed_at INTEGER NOT NULL,
  firing     TEXT NOT NULL,              -- who noticed
  why        TEXT NOT NULL,              -- as the system's scheduler tells it
  over_at    INTEGER,                    -- it fired again
  PRIMARY KEY (host, agent, slot)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_open_episode_of_an_agent ON overdue (host, agent) WHERE over_at IS NULL;
