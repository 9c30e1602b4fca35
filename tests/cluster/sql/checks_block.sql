-- One session: in a block, a check fails at its statement and not only at the end.
CREATE TABLE stock (id INT PRIMARY KEY, amount INT CHECK (amount >= 0)) WITH REPLICATION = 1;
INSERT INTO stock VALUES (1, 10), (2, 20), (3, 30);
BEGIN;
UPDATE stock SET amount = amount - 10 WHERE id = 1;
SAVEPOINT before;
UPDATE stock SET amount = amount - 1 WHERE id = 1;
ROLLBACK TO SAVEPOINT before;
INSERT INTO stock VALUES (4, -1), (5, 1);
ROLLBACK TO SAVEPOINT before;
UPDATE stock SET amount = amount + 1;
COMMIT;
SELECT id, amount FROM stock ORDER BY id;
DROP TABLE stock;
