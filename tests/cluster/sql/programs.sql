-- What a row program does in one partition: the partition column is bound, by an equality anywhere.
CREATE TABLE orders (customer INT, number INT, placed TIMESTAMP NOT NULL, total NUMERIC(8, 2), state TEXT, PRIMARY KEY (customer, number)) WITH REPLICATION = 2;
INSERT INTO orders VALUES (7, 1, '2026-01-01', 10.50, 'paid'), (7, 2, '2026-01-02', 20, 'open'), (7, 3, '2026-01-03', NULL, 'open'), (7, 4, '2026-01-04', 5.25, NULL), (8, 1, '2026-01-01', 99, 'paid');
-- Ranges of the key, both ways.
SELECT number FROM orders WHERE customer = 7 AND number > 1 AND number <= 3;
SELECT number FROM orders WHERE customer = 7 AND number BETWEEN 2 AND 9 ORDER BY number DESC;
SELECT number FROM orders WHERE customer = 7 ORDER BY number DESC LIMIT 1;
SELECT number FROM orders WHERE customer = 7 AND 3 > number ORDER BY customer, number;
SELECT number FROM orders WHERE customer = 7 AND number > NULL;
-- Any order, ties in the key's.
SELECT number, total FROM orders WHERE customer = 7 ORDER BY total;
SELECT number, total FROM orders WHERE customer = 7 ORDER BY total DESC;
SELECT number, total FROM orders WHERE customer = 7 ORDER BY total NULLS FIRST LIMIT 2 OFFSET 1;
SELECT number FROM orders WHERE customer = 7 ORDER BY state, number DESC;
SELECT DISTINCT state FROM orders WHERE customer = 7 ORDER BY state;
-- Aggregates.
SELECT count(*), count(total), sum(total), min(total), max(total), avg(total) FROM orders WHERE customer = 7;
SELECT count(*), sum(total), max(state) FROM orders WHERE customer = 9;
SELECT state, count(*), sum(total) FROM orders WHERE customer = 7 GROUP BY state ORDER BY state;
SELECT state FROM orders WHERE customer = 7 GROUP BY state HAVING count(*) > 1;
SELECT count(DISTINCT state), sum(number) FROM orders WHERE customer = 7;
SELECT avg(number) FROM orders WHERE customer = 7 AND number < 3;
SELECT sum(total) / count(*) FROM orders WHERE customer = 7 AND total IS NOT NULL;
SELECT count(*) FROM (SELECT state FROM orders WHERE customer = 7 ORDER BY number LIMIT 3) AS some WHERE state = 'open';
-- Writes by the same ways.
UPDATE orders SET state = 'late' WHERE number >= 2 AND customer = 7 AND number < 4;
DELETE FROM orders WHERE customer = 7 AND state IS NULL;
SELECT number, state FROM orders WHERE customer = 7;
-- A key whose partition column is not its first.
CREATE TABLE readings (sensor TEXT, region INT, at INT, value DOUBLE PRECISION, PRIMARY KEY (sensor, region, at)) PARTITION BY (region) WITH REPLICATION = 2;
INSERT INTO readings VALUES ('a', 1, 10, 0.5), ('a', 1, 20, 1.5), ('b', 1, 10, 2.5), ('a', 2, 10, 9.5);
SELECT sensor, max(value) FROM readings WHERE region = 1 GROUP BY sensor ORDER BY 2 DESC;
UPDATE readings SET value = value * 2 WHERE region = 1 AND value > 1;
SELECT sensor, at, value FROM readings WHERE region = 1 ORDER BY sensor DESC, at DESC;
DELETE FROM readings WHERE region = 1 AND sensor = 'a' AND at >= 20;
SELECT count(*), sum(value) FROM readings;
-- Errors of the last row are the statement's.
SELECT number / (number - 3) FROM orders WHERE customer = 7;
-- How it is done.
EXPLAIN SELECT * FROM orders WHERE customer = 7 AND number = 1;
EXPLAIN SELECT number FROM orders WHERE customer = 7 AND total > 1 ORDER BY number DESC LIMIT 1;
EXPLAIN SELECT state, count(*) FROM orders WHERE customer = 7 AND number > 1 GROUP BY state HAVING count(*) > 1 ORDER BY 2;
EXPLAIN UPDATE readings SET value = 0 WHERE region = 1;
EXPLAIN DELETE FROM readings WHERE value > 1;
EXPLAIN INSERT INTO orders VALUES (1, 1, '2026-01-01', 1, 'x');
-- What is computed twice.
UPDATE orders SET total = CASE WHEN number * 3 > 6 THEN number * 3 ELSE number * 3 + 1 END WHERE customer = 8 RETURNING total;
SELECT number * 3, number * 3 + 1 FROM orders WHERE customer = 8 AND number * 3 < 10;
-- Fields of a text.
SELECT split_part(state || ',b,c', ',', 1), split_part('a,b,c', ',', 2), split_part('a,b,c', ',', -1), split_part('a,b', ',', number), split_part('a', '', 1), split_part('a,b', NULL, 1) FROM orders WHERE customer = 7 AND number = 3;
SELECT split_part('a,b', ',', number - 3) FROM orders WHERE customer = 7 AND number = 3;
DROP TABLE orders, readings;
