-- Version 1. Times are Unix seconds, or milliseconds where the name ends in _ms.
-- Ids are kept as their bytes: hex(udid) shows the digits of a UUID.

-- The highest time that was ever seen: the store's clock never goes below it.
CREATE TABLE clock (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    unix_ms INTEGER NOT NULL
) STRICT;
INSERT INTO clock (one, unix_ms) VALUES (1, 0);

CREATE TABLE owners (
    id      INTEGER PRIMARY KEY,
    owner   TEXT    NOT NULL UNIQUE,
    created INTEGER NOT NULL
) STRICT;

-- Of a key only the SHA-256 of its 64 digits is kept.
CREATE TABLE keys (
    id      INTEGER PRIMARY KEY,
    hash    BLOB    NOT NULL UNIQUE,
    owner   INTEGER NOT NULL REFERENCES owners (id),
    alias   TEXT    NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Everything here is loaded at start; rows stay small so that a million load in a second.
CREATE TABLE devices (
    id                  INTEGER PRIMARY KEY,
    udid                BLOB    NOT NULL UNIQUE,
    owner               INTEGER NOT NULL REFERENCES owners (id),
    mac                 INTEGER,
    alias               TEXT    NOT NULL,
    platform            TEXT,
    version             TEXT,
    env_hash            TEXT,
    auto_update         INTEGER NOT NULL,
    told_auto_update    INTEGER NOT NULL,
    digest              INTEGER NOT NULL,
    seen                INTEGER NOT NULL,
    registered          INTEGER NOT NULL,
    offered_release     BLOB,
    offered_times       INTEGER,
    offered_failures    INTEGER,
    offered_quiet_until INTEGER
) STRICT;

CREATE INDEX devices_of_owner ON devices (owner, udid);

-- What only operators read of a device.
CREATE TABLE details (
    device INTEGER PRIMARY KEY REFERENCES devices (id),
    facts  TEXT NOT NULL,
    push   TEXT
) STRICT;

-- In the order of publication. target is the udid of one device, or NULL for all of the owner's.
CREATE TABLE releases (
    id        INTEGER PRIMARY KEY,
    release   BLOB    NOT NULL UNIQUE,
    owner     INTEGER NOT NULL REFERENCES owners (id),
    target    BLOB,
    version   TEXT    NOT NULL,
    platform  TEXT    NOT NULL,
    env_hash  TEXT,
    kind      TEXT    NOT NULL CHECK (kind IN ('image', 'bundle')),
    sha256    BLOB    NOT NULL,
    md5       BLOB    NOT NULL,
    size      INTEGER NOT NULL,
    published INTEGER NOT NULL,
    withdrawn INTEGER,
    source    TEXT
) STRICT;

-- Of a token only the SHA-256 of its 64 digits is kept. device is a udid; release is NULL until
-- the token is bound.
CREATE TABLE tokens (
    hash        BLOB    PRIMARY KEY,
    device      BLOB    NOT NULL,
    release     BLOB,
    issued_ms   INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL,
    used_ms     INTEGER NOT NULL,
    transfer_ms INTEGER NOT NULL,
    started     INTEGER NOT NULL,
    forced      INTEGER NOT NULL,
    replaced    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
