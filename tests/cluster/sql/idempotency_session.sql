-- One session: a key that is set is the next transaction's, and used up with it.
CREATE TABLE once (id BIGINT PRIMARY KEY, amount BIGINT) WITH REPLICATION = 2;
INSERT INTO once VALUES (1, 10), (2, 20), (3, 30);

SHOW volt.idempotency_key;
SET volt.idempotency_key = 'First';
SHOW volt.idempotency_key;
-- A read leaves it.
SELECT amount FROM once WHERE id = 1;
SHOW volt.idempotency_key;
UPDATE once SET amount = amount + 1 WHERE id = 1;
SHOW volt.idempotency_key;
-- Without the key it happens again, with it it does not.
UPDATE once SET amount = amount + 1 WHERE id = 1;
SET volt.idempotency_key TO 'First';
UPDATE once SET amount = amount + 1 WHERE id = 1;
SELECT amount FROM once WHERE id = 1;
-- Used up by what fails, too.
SET volt.idempotency_key = 'fails';
INSERT INTO once VALUES (1, 1);
SHOW volt.idempotency_key;
-- A hint comes before the setting, which is used up with it.
SET volt.idempotency_key = 'set';
/* volt.idempotency_key = 'hint' */ UPDATE once SET amount = amount + 1 WHERE id = 2;
SHOW volt.idempotency_key;
SET volt.idempotency_key = 'hint';
UPDATE once SET amount = amount + 1 WHERE id = 2;
SET volt.idempotency_key = 'hint';
/* nothing of ours */ UPDATE once SET amount = amount + 1 WHERE id = 2;
SELECT amount FROM once WHERE id = 2;

RESET volt.idempotency_key;
SET volt.idempotency_key = 'a';
RESET volt.idempotency_key;
SHOW volt.idempotency_key;
SET volt.idempotency_key = 'a';
SET volt.idempotency_key = DEFAULT;
SHOW volt.idempotency_key;
SET volt.idempotency_key = 'a';
RESET ALL;
SHOW volt.idempotency_key;
SET volt.idempotency_key = 'a';
DISCARD ALL;
SHOW volt.idempotency_key;
SET volt.idempotency_key = '';
SET volt.nothing = 'a';
RESET volt.nothing;

-- A block: COMMIT takes the key, wherever its writes lie.
BEGIN;
SET volt.idempotency_key = 'block';
UPDATE once SET amount = amount + 100 WHERE id = 1;
UPDATE once SET amount = amount - 100 WHERE id = 2;
COMMIT;
SHOW volt.idempotency_key;
SELECT * FROM once ORDER BY id;
SET volt.idempotency_key = 'block';
BEGIN;
UPDATE once SET amount = amount + 200 WHERE id = 1;
UPDATE once SET amount = amount - 200 WHERE id = 3;
COMMIT;
SELECT * FROM once ORDER BY id;
-- A hint of COMMIT.
BEGIN;
UPDATE once SET amount = 0 WHERE id = 3;
/* volt.idempotency_key = 'block' */ COMMIT;
SELECT amount FROM once WHERE id = 3;
BEGIN;
UPDATE once SET amount = 0 WHERE id = 3;
/* volt.idempotency_key = 'block 2' */ COMMIT;
SELECT amount FROM once WHERE id = 3;
-- ROLLBACK ends the transaction that the key was set for.
SET volt.idempotency_key = 'rolled back';
BEGIN;
UPDATE once SET amount = 7 WHERE id = 3;
ROLLBACK;
SHOW volt.idempotency_key;
-- Inside a block no statement has a key of its own.
BEGIN;
/* volt.idempotency_key = 'inner' */ UPDATE once SET amount = 7 WHERE id = 3;
ROLLBACK;
-- A block that only reads keeps nothing.
BEGIN;
SELECT amount FROM once WHERE id = 3;
/* volt.idempotency_key = 'reads' */ COMMIT;
BEGIN;
UPDATE once SET amount = 8 WHERE id = 3;
/* volt.idempotency_key = 'reads' */ COMMIT;
SELECT amount FROM once WHERE id = 3;

DROP TABLE once;
