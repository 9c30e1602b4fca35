-- One session: a block is in it. When a write is acknowledged is each table's own choice.
CREATE TABLE modes_sync (id INT PRIMARY KEY, v INT) WITH REPLICATION = 2;
CREATE TABLE modes_semi (id INT PRIMARY KEY, v INT) WITH REPLICATION = 2 MODE semi_sync;
CREATE TABLE modes_async (id INT PRIMARY KEY, v INT) WITH (REPLICATION = 2, MODE = 'async');
CREATE TABLE modes_wrong (id INT PRIMARY KEY, v INT) WITH REPLICATION = 2 MODE later;
INSERT INTO modes_sync VALUES (1, 10);
INSERT INTO modes_semi VALUES (1, 20);
INSERT INTO modes_async VALUES (1, 30);
SELECT name, replication, mode FROM system.tables WHERE name LIKE 'modes_%' ORDER BY name;
-- They are joined, and written in one transaction, like any others.
BEGIN;
UPDATE modes_sync SET v = v + 1 WHERE id = 1;
UPDATE modes_semi SET v = v + 1 WHERE id = 1;
UPDATE modes_async SET v = v + 1 WHERE id = 1;
COMMIT;
SELECT a.v, b.v, c.v FROM modes_sync a JOIN modes_semi b ON a.id = b.id JOIN modes_async c ON a.id = c.id;
DROP TABLE modes_sync;
DROP TABLE modes_semi;
DROP TABLE modes_async;
