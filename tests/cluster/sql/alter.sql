-- One session: another node may not know a column for a moment.
CREATE TABLE people (id INT PRIMARY KEY, name TEXT);
INSERT INTO people VALUES (1, 'Alice'), (2, 'Bob');
CREATE PROCEDURE add_person(who INT, called TEXT) PARTITION ON TABLE people COLUMN id AS BEGIN INSERT INTO people (id, name) VALUES (who, called); END;
ALTER TABLE people ADD COLUMN age INT, ADD email VARCHAR(20) NULL;
-- Rows that are there have NULL.
SELECT * FROM people ORDER BY id;
SELECT age FROM people WHERE id = 1;
INSERT INTO people VALUES (3, 'Carol', 30, 'c@x');
INSERT INTO people (id, name) VALUES (4, 'Dave');
UPDATE people SET age = 41 WHERE id = 1;
UPDATE people SET email = name || '@x' WHERE age IS NULL;
SELECT * FROM people ORDER BY id;
SELECT * FROM people WHERE id = 2;
-- What was compiled before goes on.
CALL add_person(5, 'Eve');
SELECT * FROM people WHERE id = 5;
CREATE INDEX ON people (age);
SELECT id FROM people WHERE age > 35;
SELECT count(*), count(age), max(age) FROM people;
BEGIN;
ALTER TABLE people ADD COLUMN x INT;
ROLLBACK;
ALTER TABLE people ADD COLUMN age INT;
ALTER TABLE people ADD COLUMN IF NOT EXISTS age INT;
ALTER TABLE people ADD COLUMN score INT NOT NULL;
ALTER TABLE people ADD COLUMN score INT UNIQUE;
ALTER TABLE people ADD COLUMN score INT CHECK (score > 0);
ALTER TABLE people ADD COLUMN score SERIAL;
ALTER TABLE people ADD COLUMN score POINT;
ALTER TABLE people ADD COLUMN _version INT;
ALTER TABLE people RENAME COLUMN age TO years;
ALTER TABLE nobody ADD COLUMN age INT;
ALTER TABLE IF EXISTS nobody ADD COLUMN age INT;
DROP PROCEDURE add_person;
DROP TABLE people;
