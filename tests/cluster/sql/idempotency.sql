-- Idempotency keys: what carries one happens once, whichever node is asked again.
CREATE TABLE keyed (id BIGINT PRIMARY KEY, amount BIGINT) WITH REPLICATION = 2;
INSERT INTO keyed VALUES (1, 10), (2, 20), (3, 30);

-- One partition: the second and third time nothing happens, and the answer is the same.
/* volt.idempotency_key = 'add-1' */ UPDATE keyed SET amount = amount + 1 WHERE id = 1;
/* volt.idempotency_key = 'add-1' */ UPDATE keyed SET amount = amount + 1 WHERE id = 1;
  /* of a pool */ /* volt.idempotency_key = 'add-1' */ UPDATE keyed SET amount = amount + 1 WHERE id = 1;
SELECT amount FROM keyed WHERE id = 1;
-- An INSERT that would fail the second time.
/* volt.idempotency_key = 'new-4' */ INSERT INTO keyed VALUES (4, 40);
/* volt.idempotency_key = 'new-4' */ INSERT INTO keyed VALUES (4, 40);
INSERT INTO keyed VALUES (4, 40);
-- What changed nothing is remembered, too.
/* volt.idempotency_key = 'gone' */ DELETE FROM keyed WHERE id = 5;
INSERT INTO keyed VALUES (5, 50);
/* volt.idempotency_key = 'gone' */ DELETE FROM keyed WHERE id = 5;
SELECT id FROM keyed WHERE id = 5;
-- What failed is not: it may succeed later.
/* volt.idempotency_key = 'later' */ INSERT INTO keyed VALUES (5, 51);
DELETE FROM keyed WHERE id = 5;
/* volt.idempotency_key = 'later' */ INSERT INTO keyed VALUES (5, 51);
/* volt.idempotency_key = 'later' */ INSERT INTO keyed VALUES (5, 51);

-- Several partitions.
/* volt.idempotency_key = 'all' */ UPDATE keyed SET amount = amount * 2;
/* volt.idempotency_key = 'all' */ UPDATE keyed SET amount = amount * 2;
/* volt.idempotency_key = 'two' */ INSERT INTO keyed VALUES (6, 6), (7, 7), (8, 8), (9, 9);
/* volt.idempotency_key = 'two' */ INSERT INTO keyed VALUES (6, 6), (7, 7), (8, 8), (9, 9);
/* volt.idempotency_key = 'two' */ INSERT INTO keyed VALUES (6, 6), (7, 7), (8, 8), (9, 8);
SELECT id, amount FROM keyed ORDER BY id;

-- The same key for something else.
/* volt.idempotency_key = 'add-1' */ UPDATE keyed SET amount = amount + 2 WHERE id = 1;
/* volt.idempotency_key = 'add-1' */ DELETE FROM keyed WHERE id = 1;
-- Reads don't heed it.
/* volt.idempotency_key = 'add-1' */ SELECT amount FROM keyed WHERE id = 1;
/* volt.idempotency_key = 'add-1' */ SELECT count(*) FROM keyed;

-- Hints that are none.
/* volt.key = 'a' */ SELECT 1;
/* volt.idempotency_key = a */ SELECT 1;
/* volt.idempotency_key = '' */ DELETE FROM keyed;
/* volt */ SELECT 1;
-- Positions are those of the text as it came.
/* volt.idempotency_key = 'x' */ SELECT nothing FROM keyed;

DROP TABLE keyed;
