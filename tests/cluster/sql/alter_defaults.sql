-- One session: another node may not know a column for a moment.
CREATE TABLE people (id INT PRIMARY KEY, name TEXT);
INSERT INTO people VALUES (1, 'Alice'), (2, 'Bob'), (3, 'Carol');
CREATE PROCEDURE add_person(who INT, called TEXT) PARTITION ON TABLE people COLUMN id AS BEGIN INSERT INTO people (id, name) VALUES (who, called); END;
ALTER TABLE people ADD COLUMN country VARCHAR(2) NOT NULL DEFAULT 'DE', ADD COLUMN visits BIGINT DEFAULT 7, ADD COLUMN note TEXT;
-- Rows that are there have the default, whichever way they are read.
SELECT * FROM people ORDER BY id;
SELECT country, visits FROM people WHERE id = 1;
SELECT country || '!' FROM people WHERE id = 1 AND visits = 7;
SELECT id FROM people WHERE country = 'DE' AND visits + 1 = 8 ORDER BY id;
SELECT country, sum(visits), count(*), count(visits), min(country) FROM people GROUP BY country;
SELECT id FROM people ORDER BY visits, id LIMIT 1;
SELECT a.id, b.id FROM people a JOIN people b ON a.visits = b.visits AND a.id < b.id ORDER BY 1, 2;
-- So has what a procedure puts that was compiled before.
CALL add_person(4, 'Dave');
SELECT * FROM people WHERE id = 4;
INSERT INTO people (id, name) VALUES (5, 'Eve') RETURNING *;
INSERT INTO people (id, name, country, visits) VALUES (6, 'Fay', 'FR', NULL) RETURNING *;
INSERT INTO people (id, country) VALUES (7, NULL);
UPDATE people SET country = NULL WHERE id = 1;
-- A row that is written gets its values for good.
UPDATE people SET visits = visits + 1 WHERE id = 1 RETURNING *;
UPDATE people SET note = country WHERE visits = 7;
DELETE FROM people WHERE id = 2 RETURNING *;
SELECT * FROM people ORDER BY id;
-- Other rows of another default.
ALTER TABLE people ALTER COLUMN visits SET DEFAULT 100, ALTER country SET DEFAULT 'AT', ALTER note SET DEFAULT 'new';
INSERT INTO people (id, name) VALUES (8, 'Gus') RETURNING *;
SELECT id, country, visits, note FROM people ORDER BY id;
ALTER TABLE people ALTER COLUMN visits DROP DEFAULT, ALTER country DROP DEFAULT;
INSERT INTO people (id, name) VALUES (9, 'Hal');
INSERT INTO people (id, name, country) VALUES (9, 'Hal', 'IT') RETURNING *;
SELECT id, country, visits FROM people ORDER BY id;
-- In a transaction.
BEGIN;
SELECT country FROM people WHERE id = 3;
UPDATE people SET name = country || visits WHERE id = 3;
INSERT INTO people (id, country) VALUES (10, 'ES');
SELECT * FROM people WHERE id IN (3, 10) ORDER BY id;
ROLLBACK;
-- Columns that come later, with indexes of all kinds, views and a TTL.
ALTER TABLE people ADD COLUMN level INT NOT NULL DEFAULT -1, ADD COLUMN price NUMERIC(6,2) DEFAULT 1.5, ADD COLUMN at TIMESTAMP NOT NULL DEFAULT '2020-01-02 03:04:05', ADD COLUMN raw BYTEA DEFAULT '\x0102', ADD COLUMN ok BOOLEAN DEFAULT true;
SELECT level, price, at, raw, ok FROM people WHERE id = 1;
UPDATE people SET level = 3 WHERE id IN (4, 5);
CREATE INDEX people_level ON people (level DESC);
CREATE INDEX people_low ON people (name) WHERE level < 0;
CREATE UNIQUE INDEX people_once ON people (id, level);
CREATE UNIQUE INDEX people_price ON people (id, price, ok);
SELECT id, level FROM people WHERE level = -1 ORDER BY id;
SELECT id, level FROM people WHERE level > 0 ORDER BY id;
SELECT name FROM people WHERE level < 0 AND name = 'Alice';
INSERT INTO people (id, name, country) VALUES (1, 'Twice', 'DE');
UPDATE people SET id = 11 WHERE id = 1;
UPDATE people SET id = 1 WHERE id = 11 RETURNING id, level, price;
CREATE MATERIALIZED VIEW levels AS SELECT level, count(*) AS n, sum(price) AS total, min(at) AS first, max(country) AS last FROM people WHERE ok GROUP BY level;
SELECT * FROM levels ORDER BY level;
DELETE FROM people WHERE id = 1;
UPDATE people SET price = price * 2 WHERE level = -1;
SELECT * FROM levels ORDER BY level;
CREATE VIEW priced AS SELECT id, price FROM people WHERE level < 0;
SELECT * FROM priced ORDER BY id;
DROP VIEW priced;
DROP MATERIALIZED VIEW levels;
-- Dropped, and added again with another one.
ALTER TABLE people DROP COLUMN visits, DROP COLUMN level, ADD COLUMN visits INT NOT NULL DEFAULT 0;
SELECT id, visits FROM people ORDER BY id;
CREATE PROCEDURE visit(who INT, OUT now_at INT) PARTITION ON TABLE people COLUMN id AS BEGIN UPDATE people SET visits = visits + 1 WHERE id = who RETURNING visits INTO now_at; END;
CALL visit(3);
CALL visit(3);
SELECT visits FROM people WHERE id = 3;
DROP PROCEDURE visit;
-- The time of the statement.
ALTER TABLE people ADD COLUMN seen TIMESTAMP NOT NULL DEFAULT now();
SELECT count(DISTINCT seen), min(seen) > now() - INTERVAL '1 hour' AND min(seen) <= now() AS is_now FROM people;
INSERT INTO people (id, country) VALUES (12, 'PT');
SELECT a.seen < b.seen FROM people a JOIN people b ON a.id = 3 AND b.id = 12;
-- What is no default.
ALTER TABLE people ADD COLUMN x INT NOT NULL DEFAULT NULL;
ALTER TABLE people ADD COLUMN x VARCHAR(2) DEFAULT 'abc';
ALTER TABLE people ADD COLUMN x INT DEFAULT 'abc';
ALTER TABLE people ADD COLUMN x INT DEFAULT nextval('s');
ALTER TABLE people ADD COLUMN x INT GENERATED ALWAYS AS IDENTITY;
ALTER TABLE people ALTER COLUMN nothing SET DEFAULT 1;
ALTER TABLE people ALTER COLUMN id SET DEFAULT 'abc';
ALTER TABLE people ALTER COLUMN id SET NOT NULL;
DROP PROCEDURE add_person;
DROP TABLE people;
CREATE TABLE counted (id SERIAL PRIMARY KEY);
ALTER TABLE counted ALTER COLUMN id SET DEFAULT 1;
DROP TABLE counted;
-- A replicated table too.
CREATE TABLE kinds (kind TEXT PRIMARY KEY) REPLICATED;
INSERT INTO kinds VALUES ('a'), ('b');
ALTER TABLE kinds ADD COLUMN title TEXT NOT NULL DEFAULT 'none';
UPDATE kinds SET title = title || kind WHERE kind = 'a';
SELECT * FROM kinds ORDER BY kind;
SELECT title FROM kinds WHERE kind = 'b';
DROP TABLE kinds;
