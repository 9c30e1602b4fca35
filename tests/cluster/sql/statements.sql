-- Writes of one row and of many, over one partition and over all; queries of every shape.
CREATE TABLE accounts (id INT PRIMARY KEY, owner TEXT NOT NULL, balance NUMERIC(10, 2) DEFAULT 0) WITH REPLICATION = 2;
INSERT INTO accounts VALUES (1, 'ann', 10), (2, 'bob', 20), (3, 'cid', 30), (4, 'ann', 40);
INSERT INTO accounts (id, owner) VALUES (5, 'dora');
SELECT * FROM accounts WHERE id = 3;
SELECT * FROM accounts WHERE id IN (5, 1) ORDER BY id;
SELECT * FROM accounts WHERE owner = 'ann' ORDER BY id DESC;
SELECT id FROM accounts ORDER BY balance DESC, id LIMIT 2;
SELECT id FROM accounts ORDER BY id LIMIT 2 OFFSET 3;
SELECT count(*), sum(balance), min(balance), max(balance), avg(balance) FROM accounts;
SELECT owner, count(*), sum(balance) FROM accounts GROUP BY owner ORDER BY owner;
SELECT owner FROM accounts GROUP BY owner HAVING count(*) > 1;
SELECT DISTINCT owner FROM accounts ORDER BY owner;
UPDATE accounts SET balance = balance + 1 WHERE id = 1;
UPDATE accounts SET balance = balance * 2 WHERE owner = 'ann';
SELECT id, balance FROM accounts ORDER BY id;
UPDATE accounts SET balance = 0 WHERE id = 77;
DELETE FROM accounts WHERE id = 2;
DELETE FROM accounts WHERE balance > 50;
SELECT id FROM accounts ORDER BY id;
-- Conditions that no row can meet.
DELETE FROM accounts WHERE false;
DELETE FROM accounts WHERE id = 1 AND id = 2;
UPDATE accounts SET balance = 7 WHERE 1 = 2;
-- A statement that fails in one partition changes nothing in any.
INSERT INTO accounts VALUES (10, 'x', 1), (11, 'x', 1), (12, 'x', 1), (13, 'x', 1), (3, 'again', 1);
SELECT count(*) FROM accounts WHERE owner = 'x';
UPDATE accounts SET owner = NULL WHERE id > 0;
SELECT count(*) FROM accounts WHERE owner IS NULL;
-- Joins, subqueries, set operations.
CREATE TABLE cities (owner TEXT PRIMARY KEY, city TEXT);
INSERT INTO cities VALUES ('ann', 'Aachen'), ('cid', 'Cork');
SELECT a.id, c.city FROM accounts a JOIN cities c ON a.owner = c.owner ORDER BY a.id;
SELECT a.id, c.city FROM accounts a LEFT JOIN cities c ON a.owner = c.owner ORDER BY a.id;
SELECT owner FROM cities WHERE owner NOT IN (SELECT owner FROM accounts) ORDER BY owner;
SELECT owner FROM accounts UNION SELECT owner FROM cities ORDER BY owner;
WITH rich AS (SELECT * FROM accounts WHERE balance >= 22) SELECT owner FROM rich ORDER BY owner;
SELECT 1 + 1 AS two, 'x' || 'y' AS text;
-- Keys of several columns; the first is the partition key.
CREATE TABLE calls (caller INT, at TIMESTAMP, seconds INT NOT NULL, PRIMARY KEY (caller, at));
INSERT INTO calls VALUES (7, '2026-01-01 10:00:00', 30), (7, '2026-01-01 11:00:00', 60), (8, '2026-01-01 10:00:00', 90);
INSERT INTO calls VALUES (7, '2026-01-01 11:00:00', 61);
SELECT * FROM calls WHERE caller = 7 ORDER BY at;
SELECT seconds FROM calls WHERE caller = 7 AND at = '2026-01-01 11:00:00';
DELETE FROM calls WHERE caller = 7 AND at < '2026-01-01 10:30:00';
SELECT caller, sum(seconds) FROM calls GROUP BY caller ORDER BY caller;
DROP TABLE calls;
DROP TABLE cities;
DROP TABLE accounts;
DROP TABLE IF EXISTS accounts;
DROP TABLE accounts;
