-- CHECK constraints: of columns and of the table, with names and without, at every way to put a row.
CREATE TABLE goods (
  id BIGINT PRIMARY KEY,
  name TEXT CHECK (length(name) > 1),
  price NUMERIC(8, 2) CHECK (price > 0),
  discounted NUMERIC(8, 2),
  state TEXT DEFAULT 'new' CONSTRAINT known_state CHECK (state IN ('new', 'sold', 'lost')),
  CHECK (discounted < price),
  CONSTRAINT ids CHECK (id BETWEEN -10 AND 1000000),
  CHECK (price <> 13 AND id <> 13)
) WITH REPLICATION = 1;
INSERT INTO goods (id, name, price) VALUES (1, 'pen', 2), (2, 'ink', 3.5), (3, NULL, NULL);
INSERT INTO goods (id, name, price) VALUES (4, 'x', 2);
INSERT INTO goods (id, name, price) VALUES (4, 'cap', 0);
INSERT INTO goods VALUES (4, 'cap', 5, 5);
INSERT INTO goods VALUES (4, 'cap', 5, NULL, 'stolen');
INSERT INTO goods (id, name, price) VALUES (-11, 'cap', 5);
INSERT INTO goods (id, name, price) VALUES (13, 'cap', 5);
-- Several are false: the first by name.
INSERT INTO goods VALUES (-11, 'c', -1, 5, 'stolen');
-- All rows of a statement or none, in whatever partitions.
INSERT INTO goods (id, name, price) VALUES (10, 'aa', 1), (11, 'bb', 1), (12, 'cc', -1), (14, 'dd', 1);
SELECT count(*) FROM goods;
SELECT name, condition FROM system.checks WHERE "table" = 'goods' ORDER BY name;
-- NULL passes, and a duplicate key is looked for afterwards.
INSERT INTO goods (id, name, price) VALUES (1, 'pen', -2);
INSERT INTO goods (id, name, price) VALUES (1, 'pen', 2);
INSERT INTO goods VALUES (5, NULL, NULL, 4, NULL);
UPDATE goods SET price = price - 2 WHERE id = 1;
UPDATE goods SET price = price - 2;
UPDATE goods SET discounted = 3 WHERE id = 2;
UPDATE goods SET discounted = 4 WHERE id = 2;
UPDATE goods SET name = 'pencil, long and sharp, for drawing on paper and on wood, in the colour of rust', price = -1 WHERE id = 1;
SELECT id, name, price, discounted, state FROM goods ORDER BY id;
DELETE FROM goods WHERE id = 5;
-- In a procedure.
CREATE PROCEDURE reprice(which BIGINT, to_price NUMERIC) PARTITION ON TABLE goods COLUMN id AS $$
BEGIN
  UPDATE goods SET price = to_price WHERE id = which;
END $$;
CALL reprice(1, 7);
CALL reprice(1, -7);
SELECT price FROM goods WHERE id = 1;
-- What a check can't be.
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (n > (SELECT 1)));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (EXISTS (SELECT 1 FROM goods)));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (sum(n) > 1));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (n > max(id)));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (row_number() OVER () > 1));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (n + 1));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (m > 1));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (random() > 0.5));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (nonsense(n) > 1));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (n > $1));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (_version > 1));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (n > 'x'));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CONSTRAINT twice CHECK (n > 1), CONSTRAINT twice CHECK (n > 2));
CREATE TABLE bad (id INT PRIMARY KEY, n INT CHECK (n > ));
-- What it can.
CREATE TABLE odd ("Id" INT PRIMARY KEY, at TIMESTAMP, b BOOLEAN CHECK (b), CHECK (odd."Id" % 2 = 1 OR b IS NULL), CHECK (at <= now()), CHECK (CASE WHEN b THEN at IS NOT NULL ELSE NULL END));
INSERT INTO odd VALUES (1, '2001-01-01 00:00:00', true), (2, NULL, NULL);
INSERT INTO odd VALUES (4, '2001-01-01 00:00:00', true);
INSERT INTO odd VALUES (3, '2901-01-01 00:00:00', true);
INSERT INTO odd VALUES (3, NULL, true);
INSERT INTO odd VALUES (3, NULL, false);
SELECT name, condition FROM system.checks WHERE "table" = 'odd' ORDER BY name;
UPDATE odd SET "Id" = "Id" + 1 WHERE "Id" = 1;
DROP PROCEDURE reprice;
DROP TABLE goods;
DROP TABLE odd;
