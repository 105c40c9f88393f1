-- What an engine's program said of its version, so that a firing need not ask it each time.
CREATE TABLE programs (
  path     TEXT PRIMARY KEY,            -- as it is started; what it links to is in `file`
  file     TEXT NOT NULL,               -- which file that was: real path, device, inode, size, mtime, ctime
  version  TEXT NOT NULL,
  asked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
