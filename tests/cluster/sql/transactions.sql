-- One session, with several statements in one round trip here and there.
CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(10), amount INT NOT NULL) WITH REPLICATION = 2;
INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20), (3, 'three', 30);
-- Its own writes are seen, in programs and in queries; nothing else is.
BEGIN; UPDATE t SET amount = amount + 1 WHERE id = 1; UPDATE t SET amount = amount - 1 WHERE id = 2; SELECT * FROM t WHERE id = 1; SELECT * FROM t ORDER BY id; COMMIT;
SELECT * FROM t ORDER BY id;
BEGIN; DELETE FROM t WHERE amount > 15; INSERT INTO t VALUES (4, 'four', 40), (2, 'again', 0); SELECT * FROM t ORDER BY id; SELECT count(*), sum(amount) FROM t; ROLLBACK;
SELECT * FROM t ORDER BY id;
START TRANSACTION; INSERT INTO t VALUES (5, 'five', 5); DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 'new', 6); UPDATE t SET amount = 7 WHERE id = 5; END;
SELECT * FROM t WHERE id = 5;
-- An error ends it, and nothing of it stays.
BEGIN; INSERT INTO t VALUES (6, 'six', 6); INSERT INTO t VALUES (1, 'one', 1); SELECT 1; COMMIT;
ROLLBACK;
SELECT * FROM t WHERE id = 6;
-- Savepoints.
BEGIN; SAVEPOINT a; INSERT INTO t VALUES (6, 'six', 6); SAVEPOINT a; DELETE FROM t WHERE id = 6;
INSERT INTO t VALUES (1, 'one', 1);
SELECT 1;
ROLLBACK TO a; SELECT * FROM t WHERE id = 6; RELEASE a; ROLLBACK TO SAVEPOINT a; SELECT * FROM t WHERE id = 6; COMMIT;
BEGIN; RELEASE b;
ROLLBACK;
SAVEPOINT s;
ROLLBACK TO s;
RELEASE s;
-- Modes.
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SHOW TRANSACTION ISOLATION LEVEL; SHOW transaction_read_only; SELECT count(*) FROM t; DELETE FROM t;
ABORT;
BEGIN; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SHOW transaction_isolation; SELECT id FROM t WHERE id = 1;
SET TRANSACTION READ ONLY;
ROLLBACK;
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ; SHOW default_transaction_isolation; BEGIN; SHOW transaction_isolation; COMMIT; SET default_transaction_isolation = 'serializable';
SET transaction_isolation = 'sometimes';
BEGIN TRANSACTION READ ONLY; SELECT amount FROM t WHERE id = 1; COMMIT AND CHAIN; SHOW transaction_read_only; ROLLBACK;
-- What a block can't hold, and what is out of place.
BEGIN; CREATE TABLE u (id INT PRIMARY KEY);
ROLLBACK;
BEGIN; BEGIN; ROLLBACK; ROLLBACK;
COMMIT;
BEGIN; SELECT * FROM nowhere;
ABORT TRANSACTION;
SELECT * FROM t ORDER BY id;
DROP TABLE t;
-- Not in a block.
BEGIN;
PROMOTE;
ROLLBACK;
