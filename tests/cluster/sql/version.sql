-- One session: _version, which every table has and no * shows.
CREATE TABLE versioned (shard BIGINT, id BIGINT, amount BIGINT, PRIMARY KEY (shard, id)) PARTITION BY (shard);
CREATE TABLE other (id BIGINT PRIMARY KEY, name TEXT);
INSERT INTO versioned VALUES (1, 1, 10);
INSERT INTO versioned VALUES (1, 2, 20);
INSERT INTO versioned VALUES (1, 3, 30);
INSERT INTO other VALUES (1, 'one'), (2, 'two');

-- In a row program, and by the query executor.
SELECT id, _version > 0 AS has_one FROM versioned WHERE shard = 1 AND id = 1;
SELECT id, _version > 0 AS has_one FROM versioned ORDER BY id;
SELECT id FROM versioned WHERE shard = 1 AND id = 1 AND _version IS NULL;
SELECT id FROM versioned WHERE _version IS NULL;
SELECT pg_typeof(_version) FROM versioned WHERE id = 1;
-- Both give the same.
SELECT a.id FROM versioned a JOIN versioned b ON a.shard = b.shard AND a.id = b.id AND a._version = b._version ORDER BY a.id;

-- A change makes a newer one.
UPDATE versioned SET amount = amount + 1 WHERE shard = 1 AND id = 1;
SELECT id, amount FROM versioned ORDER BY _version DESC;
SELECT id, rank() OVER (ORDER BY _version) AS place FROM versioned ORDER BY id;
SELECT min(id) AS eldest FROM versioned WHERE _version = (SELECT min(_version) FROM versioned);
-- Compare and set.
UPDATE versioned SET amount = 0 WHERE shard = 1 AND id = 1 AND _version = 0;
UPDATE versioned SET amount = 12 WHERE shard = 1 AND id = 1 AND _version > 0;
UPDATE versioned SET amount = 13 WHERE _version < 0;
DELETE FROM versioned WHERE shard = 1 AND id = 2 AND _version = 0;
SELECT * FROM versioned ORDER BY id;
-- It may be copied.
UPDATE versioned SET amount = _version WHERE shard = 1 AND id = 3;
SELECT amount > 0 AND amount < _version AS older FROM versioned WHERE shard = 1 AND id = 3;
UPDATE versioned SET amount = 30 WHERE shard = 1 AND id = 3;

-- No * has it.
SELECT * FROM versioned WHERE shard = 1 AND id = 1 AND _version > 0;
SELECT *, _version > 0 AS has_one FROM versioned WHERE shard = 1 AND id = 1;
SELECT * FROM versioned WHERE _version > 0 ORDER BY id;
SELECT v.* FROM versioned v WHERE v._version > 0 ORDER BY id;
SELECT * FROM versioned v JOIN other o ON o.id = v.id WHERE v._version > 0 AND o._version > 0 ORDER BY v.id;
SELECT o.*, v.amount FROM versioned v, other o WHERE o.id = v.id AND v._version > 0 ORDER BY v.id;
SELECT * FROM (SELECT id, _version > 0 AS has_one FROM other) s ORDER BY id;
SELECT * FROM (SELECT * FROM other WHERE _version > 0) s ORDER BY id;
WITH other AS (SELECT 7 AS id, 8 AS _version) SELECT * FROM other;
SELECT count(*) FROM versioned WHERE _version > 0;
SELECT * FROM versioned JOIN other USING (id) WHERE other._version > 0;
SELECT * FROM versioned NATURAL JOIN other WHERE other._version > 0;
SELECT _version FROM system.nodes;
SELECT versioned._versions FROM versioned;

-- Nobody writes it.
INSERT INTO other (id, name, _version) VALUES (3, 'three', 3);
UPDATE other SET _version = 3 WHERE id = 1;
UPDATE other SET "_version" = 3 WHERE id = 1;
INSERT INTO other VALUES (3, '_version');
INSERT INTO other VALUES (4, _version);
CREATE TABLE wrong (id BIGINT PRIMARY KEY, _version INT);
CREATE TABLE wrong (id BIGINT PRIMARY KEY, "_version" INT);

-- What a transaction has written itself has none yet.
BEGIN;
UPDATE versioned SET amount = 14 WHERE shard = 1 AND id = 1;
SELECT id, _version IS NULL AS own FROM versioned WHERE shard = 1 AND id = 1;
SELECT id, _version IS NULL AS own FROM versioned WHERE shard = 1 AND id = 2;
SELECT id, _version IS NULL AS own FROM versioned ORDER BY id;
UPDATE versioned SET amount = 15 WHERE shard = 1 AND id = 1 AND _version > 0;
COMMIT;
SELECT id, amount, _version > 0 AS has_one FROM versioned WHERE shard = 1 AND id = 1;

DROP TABLE versioned, other;
