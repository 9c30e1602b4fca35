-- One session
-- Secondary indexes: what they are used for, wherever rows are found, and what is refused.
CREATE TABLE orders (customer INT, id INT, placed TIMESTAMP, state TEXT, total NUMERIC(10, 2), PRIMARY KEY (customer, id));
INSERT INTO orders VALUES (1, 1, '2026-01-03', 'paid', 30), (1, 2, '2026-01-01', 'open', 10), (1, 3, '2026-01-02', 'open', NULL), (2, 1, '2026-01-01', 'paid', 5), (2, 2, NULL, 'open', 7);
CREATE INDEX orders_by_time ON orders (customer, placed DESC);
CREATE INDEX ON orders (state);
CREATE INDEX orders_open ON orders (customer, total) WHERE state = 'open';
SELECT name, "table", is_unique, state, definition FROM system.indexes ORDER BY name;
-- The newest first, without sorting: by the index, whichever way it goes.
EXPLAIN SELECT id, placed FROM orders WHERE customer = 1 ORDER BY placed DESC LIMIT 2;
SELECT id, placed FROM orders WHERE customer = 1 ORDER BY placed DESC LIMIT 2;
EXPLAIN SELECT id, placed FROM orders WHERE customer = 1 ORDER BY placed LIMIT 2;
SELECT id, placed FROM orders WHERE customer = 1 ORDER BY placed LIMIT 2;
SELECT id, placed FROM orders WHERE customer = 2 ORDER BY placed;
SELECT id, placed FROM orders WHERE customer = 2 ORDER BY placed DESC;
-- NULLs where the index has not got them: sorted.
EXPLAIN SELECT id, placed FROM orders WHERE customer = 2 ORDER BY placed NULLS FIRST;
SELECT id, placed FROM orders WHERE customer = 2 ORDER BY placed NULLS FIRST;
-- Ranges.
EXPLAIN SELECT id FROM orders WHERE customer = 1 AND placed >= '2026-01-02' AND placed < '2026-01-03';
SELECT id FROM orders WHERE customer = 1 AND placed >= '2026-01-02' AND placed < '2026-01-03';
SELECT id FROM orders WHERE customer = 1 AND placed > '2026-01-01' ORDER BY placed;
-- A partial index serves whoever asks for its rows only.
EXPLAIN SELECT id FROM orders WHERE customer = 1 AND state = 'open' AND total < 20;
SELECT id FROM orders WHERE customer = 1 AND state = 'open' AND total < 20;
EXPLAIN SELECT id FROM orders WHERE customer = 1 AND total < 20;
SELECT id FROM orders WHERE customer = 1 AND total < 20;
-- Writes find their rows by them too, in every partition.
EXPLAIN UPDATE orders SET state = 'late' WHERE state = 'open' AND id > 1;
UPDATE orders SET state = 'late' WHERE state = 'open' AND id > 1;
SELECT customer, id FROM orders WHERE state = 'late' ORDER BY customer, id;
DELETE FROM orders WHERE state = 'late';
SELECT customer, id FROM orders WHERE state <> 'none' ORDER BY customer, id;
-- Queries over all partitions look no further either.
SELECT customer, id FROM orders WHERE state = 'paid' AND total > 6 ORDER BY customer;
SELECT a.id, b.id FROM orders a JOIN orders b ON a.customer = b.customer WHERE a.state = 'paid' AND b.customer = 2 ORDER BY 1, 2;
BEGIN;
INSERT INTO orders VALUES (3, 1, NULL, 'paid', 1);
UPDATE orders SET state = 'sent' WHERE customer = 1 AND id = 1;
SELECT customer, count(*) FROM orders WHERE state = 'paid' GROUP BY customer ORDER BY customer;
ROLLBACK;
DROP INDEX orders_state_idx;
DROP INDEX orders_state_idx;
DROP INDEX IF EXISTS orders_state_idx;
DROP INDEX orders;
CREATE INDEX orders ON orders (state);
CREATE INDEX orders_open ON orders (state);
CREATE INDEX IF NOT EXISTS orders_open ON orders (state);
CREATE INDEX x ON nothing (a);
CREATE INDEX x ON orders (nothing);
CREATE INDEX x ON orders (id, id);
CREATE INDEX x ON orders (lower(state));
CREATE INDEX x ON orders (state NULLS FIRST);
CREATE INDEX x ON orders USING hash (state);
CREATE INDEX x ON orders (state) WHERE placed < now();
CREATE INDEX x ON orders (state) WHERE EXISTS (SELECT 1 FROM orders);
-- A truncated table has empty ones.
CREATE TABLE short (k INT PRIMARY KEY, a INT, CHECK (a > 0));
CREATE UNIQUE INDEX ON short (a, k);
INSERT INTO short VALUES (1, 1), (2, 2);
TRUNCATE short;
SELECT count(*) FROM short WHERE a = 1;
INSERT INTO short VALUES (1, 1);
DROP TABLE short;
-- Unique ones.
CREATE UNIQUE INDEX x ON orders (state);
CREATE UNIQUE INDEX once ON orders (customer, total);
INSERT INTO orders VALUES (1, 7, NULL, 'new', 30);
INSERT INTO orders VALUES (1, 7, NULL, 'new', 31), (1, 8, NULL, 'new', 31);
INSERT INTO orders VALUES (1, 7, NULL, 'new', NULL), (1, 8, NULL, 'new', NULL), (2, 7, NULL, 'new', 30);
UPDATE orders SET total = 30 WHERE customer = 1 AND id = 7;
UPDATE orders SET total = 30 WHERE customer = 1 AND id = 1;
UPDATE orders SET total = total + 1 WHERE customer = 1;
SELECT customer, id, total FROM orders ORDER BY customer, id;
BEGIN;
INSERT INTO orders VALUES (1, 20, NULL, 'new', 50);
INSERT INTO orders VALUES (1, 21, NULL, 'new', 50);
ROLLBACK;
DROP INDEX once;
INSERT INTO orders VALUES (1, 9, NULL, 'new', 31);
CREATE UNIQUE INDEX once ON orders (customer, total);
SELECT name FROM system.indexes WHERE name = 'once';
CREATE TABLE users (region TEXT, id INT, email TEXT, nick TEXT, PRIMARY KEY (region, id), UNIQUE (region, email), CONSTRAINT one_nick UNIQUE (nick, region));
INSERT INTO users VALUES ('eu', 1, 'a@x', 'a'), ('us', 1, 'a@x', 'a');
INSERT INTO users VALUES ('eu', 2, 'a@x', 'b');
INSERT INTO users VALUES ('eu', 2, 'b@x', 'a');
DROP INDEX one_nick;
SELECT name, is_unique, state, definition FROM system.indexes WHERE "table" = 'users' ORDER BY name;
EXPLAIN SELECT id FROM users WHERE region = 'eu' AND email = 'a@x';
SELECT id FROM users WHERE region = 'eu' AND email = 'a@x';
CREATE TABLE t (k INT PRIMARY KEY, email TEXT UNIQUE);
CREATE TABLE t (k INT PRIMARY KEY, a INT, UNIQUE (a));
CREATE TABLE t (k INT PRIMARY KEY, a INT, UNIQUE (k, b));
DROP TABLE users;
DROP TABLE orders;
SELECT count(*) FROM system.indexes;
