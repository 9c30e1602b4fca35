-- A replicated table: whole in every partition.
CREATE TABLE rates (id INT PRIMARY KEY, code VARCHAR(3) UNIQUE, cents BIGINT CHECK (cents >= 0), note TEXT) REPLICATED;
CREATE TABLE calls (phone BIGINT, n INT, rate INT, cost BIGINT, PRIMARY KEY (phone, n)) PARTITION BY (phone);
SELECT name, partition_column FROM system.tables WHERE name IN ('rates', 'calls') ORDER BY name;

-- Every row is counted once, wherever it lies.
INSERT INTO rates VALUES (1, 'loc', 5, 'local'), (2, 'mob', 20, NULL), (3, 'int', 80, NULL), (4, 'sat', 900, 'far');
SELECT * FROM rates ORDER BY id;
SELECT * FROM rates WHERE id = 2;
SELECT count(*), sum(cents) FROM rates;
INSERT INTO rates VALUES (5, 'new', 7, NULL) RETURNING id, code, cents;
UPDATE rates SET cents = cents + 1 WHERE id >= 4;
UPDATE rates SET note = 'every day' WHERE code = 'loc' RETURNING *;
DELETE FROM rates WHERE code = 'new' RETURNING id;
DELETE FROM rates WHERE id = 99;
SELECT id, cents FROM rates ORDER BY id DESC LIMIT 2;

-- What is unique needs no partition column, and what is refused leaves nothing anywhere.
INSERT INTO rates VALUES (1, 'xxx', 1, NULL);
INSERT INTO rates VALUES (6, 'mob', 1, NULL);
INSERT INTO rates VALUES (6, 'six', -1, NULL);
UPDATE rates SET code = 'mob' WHERE id = 3;
CREATE UNIQUE INDEX rates_note ON rates (note) WHERE note IS NOT NULL;
INSERT INTO rates VALUES (7, 'sev', 1, 'far');
SELECT count(*) FROM rates;
-- Nor is it known where a row is, so that any of its key may change.
UPDATE rates SET id = 40 WHERE id = 4;
SELECT id FROM rates WHERE code = 'sat';

-- Procedures of a partition read it.
CREATE PROCEDURE charge(p BIGINT, place INT, kind INT, seconds BIGINT, OUT total BIGINT) PARTITION ON TABLE calls COLUMN phone AS $$
DECLARE price BIGINT;
BEGIN
  SELECT cents INTO price FROM rates WHERE id = kind;
  IF NOT FOUND THEN RAISE EXCEPTION 'no rate %', kind; END IF;
  total := price * seconds;
  INSERT INTO calls VALUES (p, place, kind, total);
END $$;
CALL charge(1, 1, 1, 10, NULL);
CALL charge(2, 1, 2, 10, NULL);
CALL charge(3, 1, 40, 10, NULL);
CALL charge(4, 1, 3, 10, NULL);
CALL charge(5, 1, 9, 10, NULL);
-- What every partition has is not a procedure's of one of them to change.
CREATE PROCEDURE raise_rate(p BIGINT, kind INT) PARTITION ON TABLE calls COLUMN phone AS $$ BEGIN UPDATE rates SET cents = cents + 1 WHERE id = kind; END $$;
CREATE PROCEDURE by_rate(kind INT) PARTITION ON TABLE rates COLUMN id AS $$ BEGIN UPDATE rates SET cents = cents + 1 WHERE id = kind; END $$;
CREATE PROCEDURE raise_rate(kind INT, OUT price BIGINT) AS $$ BEGIN UPDATE rates SET cents = cents + 1 WHERE id = kind RETURNING cents INTO price; END $$;
CALL raise_rate(2, NULL);
CALL charge(2, 2, 2, 10, NULL);

-- Queries join it.
SELECT calls.phone, rates.code, calls.cost FROM calls JOIN rates ON rates.id = calls.rate ORDER BY calls.phone, calls.n;
SELECT rates.code, count(calls.phone) FROM rates LEFT JOIN calls ON rates.id = calls.rate GROUP BY rates.code ORDER BY rates.code;
EXPLAIN SELECT * FROM rates WHERE id = 1;
EXPLAIN UPDATE rates SET cents = 1 WHERE id = 1;

-- A view of it has every row once.
CREATE MATERIALIZED VIEW dear AS SELECT cents > 50 AS is_dear, count(*) AS rates, sum(cents) AS cents FROM rates GROUP BY cents > 50;
SELECT * FROM dear ORDER BY is_dear;
UPDATE rates SET cents = 60 WHERE id = 1;
SELECT * FROM dear ORDER BY is_dear;
SELECT rates FROM dear WHERE is_dear;
SELECT sum(rates) FROM dear;

-- Each copy of a row has a version of its own, so that none is shown.
SELECT _version FROM rates;
UPDATE rates SET cents = 1 WHERE id = 1 AND _version = 1;
UPDATE rates SET cents = 1 WHERE id = 1 RETURNING _version;
SELECT calls.*, rates.* FROM calls JOIN rates ON rates.id = calls.rate WHERE calls._version > 0 ORDER BY calls.phone, calls.n LIMIT 1;

ALTER TABLE rates ADD COLUMN since TIMESTAMP;
SELECT since FROM rates WHERE id = 2;
TRUNCATE rates;
SELECT count(*) FROM rates;
SELECT * FROM dear;
INSERT INTO rates (id, code, cents) VALUES (1, 'loc', 5);
SELECT * FROM rates;
DROP TABLE rates;
CREATE TABLE wrong (id INT PRIMARY KEY) REPLICATED PARTITION BY (id);
CREATE TABLE numbers (id SERIAL PRIMARY KEY, name TEXT) REPLICATED WITH REPLICATION = 2;
INSERT INTO numbers (name) VALUES ('a'), ('b') RETURNING name;
SELECT count(DISTINCT id), count(*) FROM numbers;
DROP PROCEDURE charge;
DROP PROCEDURE raise_rate;
DROP MATERIALIZED VIEW dear;
DROP TABLE rates, calls, numbers;
