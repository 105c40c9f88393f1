-- How fast this host pushes: one row a repository, over all processes.

CREATE TABLE paces (
  repo    TEXT PRIMARY KEY,             -- full name, lower case
  tat_ms  INTEGER NOT NULL              -- GCRA's theoretical arrival time: when all of the burst may be used again; UTC ms
) STRICT, WITHOUT ROWID;
