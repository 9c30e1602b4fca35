CREATE TABLE accounts (id INT PRIMARY KEY, owner VARCHAR(10) NOT NULL, balance BIGINT NOT NULL) WITH REPLICATION = 1;
CREATE TABLE bookings (account INT, seq INT, amount BIGINT NOT NULL, PRIMARY KEY (account, seq)) WITH REPLICATION = 1;
INSERT INTO accounts VALUES (1, 'Alice', 100), (2, 'Bob', 50), (3, 'Carol', 0);
-- Several statements in one partition.
CREATE PROCEDURE book(account_id INT, amt BIGINT, INOUT new_balance BIGINT) PARTITION ON TABLE accounts COLUMN id AS $$
DECLARE
  last INT := 0;
  b bookings%ROWTYPE;
BEGIN
  UPDATE accounts SET balance = balance + amt WHERE id = account_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'no account %', account_id USING ERRCODE = 'no_data_found', HINT = 'Open it first.';
  END IF;
  SELECT balance INTO STRICT new_balance FROM accounts WHERE id = account_id;
  IF new_balance < 0 THEN
    RAISE EXCEPTION 'account % has not %', account_id, -amt USING ERRCODE = '23514';
  ELSIF new_balance = 0 THEN
    RAISE NOTICE 'account % is empty', account_id;
  END IF;
  FOR b IN SELECT * FROM bookings WHERE account = account_id LOOP
    last := b.seq;
  END LOOP;
  INSERT INTO bookings (account, seq, amount) VALUES (account_id, last + 1, amt);
END
$$;
CALL book(1, -30, NULL);
CALL book(1, -30, NULL);
CALL book(2, -51, NULL);
CALL book(2, -50, NULL);
CALL book(9, 1, NULL);
CALL book('1', 2.6, NULL);
CALL book(1, 2);
CALL book(1);
CALL book(NULL, 1, NULL);
SELECT * FROM accounts ORDER BY id;
SELECT * FROM bookings ORDER BY account, seq;
-- With a key it happens once, and answers as it did the first time.
/* volt.idempotency_key = 'call-1' */ CALL book(1, 8, NULL);
/* volt.idempotency_key = 'call-1' */ CALL book(1, 8, NULL);
/* volt.idempotency_key = 'call-1' */ CALL book(1, 9, NULL);
SELECT balance FROM accounts WHERE id = 1;
-- One statement.
CREATE PROCEDURE balance_of(INT) PARTITION ON TABLE accounts COLUMN id AS SELECT owner, balance FROM accounts WHERE id = $1;
CREATE PROCEDURE pay_all(BIGINT) AS UPDATE accounts SET balance = balance + $1;
CALL balance_of(1);
CALL balance_of(77);
CALL pay_all(1000);
CALL balance_of(3);
-- Over several partitions: a transaction, its statements wherever their rows lie.
CREATE PROCEDURE transfer(source INT, target INT, amt BIGINT) AS $$
BEGIN
  IF (SELECT balance FROM accounts WHERE id = source) < amt OR NOT EXISTS (SELECT 1 FROM accounts WHERE id = target) THEN
    RAISE check_violation USING MESSAGE = 'no transfer of ' || CAST(amt AS TEXT), DETAIL = 'Too little, or nobody to have it.';
  END IF;
  UPDATE accounts SET balance = balance - amt WHERE id = source;
  UPDATE accounts SET balance = balance + amt WHERE id = target;
END
$$ LANGUAGE plpgsql;
CALL transfer(1, 2, 40);
CALL transfer(1, 2, 40000);
CALL transfer(1, 99, 40);
SELECT sum(balance), count(*) FROM accounts;
SELECT * FROM accounts ORDER BY id;
/* volt.idempotency_key = 'call-2' */ CALL transfer(1, 2, 40);
-- Inside a transaction it is part of it.
BEGIN; CALL transfer(1, 2, 1); CALL book(2, 5, NULL); SELECT * FROM accounts ORDER BY id; ROLLBACK;
SELECT * FROM accounts ORDER BY id;
-- Rows.
CREATE PROCEDURE rich(least BIGINT) RETURNS TABLE (who TEXT, has BIGINT) AS $$
DECLARE
  r RECORD;
BEGIN
  FOR r IN SELECT owner, balance FROM accounts WHERE balance >= least ORDER BY balance DESC LOOP
    CONTINUE WHEN r.owner = 'Carol';
    who := upper(r.owner);
    has := r.balance;
    RETURN NEXT;
  END LOOP;
  IF NOT FOUND THEN
    RAISE WARNING 'nobody has %', least;
  END IF;
  RETURN QUERY SELECT 'all', CAST(sum(balance) AS BIGINT) FROM accounts;
END
$$;
CALL rich(1000);
CALL rich(100000);
-- Loops.
CREATE PROCEDURE loops(n INT, INOUT total BIGINT, OUT steps INT) AS $$
DECLARE
  i INT;
BEGIN
  IF n < 0 OR n > 1000 OR n % 500 = 499 AND n > 7 THEN RETURN; END IF;
  total := 0; steps := 0;
  FOR i IN 1..n LOOP total := total + i; steps := steps + 1; END LOOP;
  FOR i IN REVERSE n..1 BY 2 LOOP total := total + i; steps := steps + 1; EXIT WHEN i < 3; END LOOP;
  i := 0;
  WHILE i < n LOOP i := i + 1; IF i % 2 = 0 THEN CONTINUE; END IF; steps := steps + 1; END LOOP;
  LOOP
    i := i - 1;
    EXIT WHEN i <= 0;
    BEGIN
      steps := steps + CASE WHEN i > 2 THEN 1 ELSE 0 END;
    END;
  END LOOP;
  IF total > 100 THEN total := 100; RETURN; END IF;
  total := -total;
END
$$;
CALL loops(5, 0, NULL);
CALL loops(0, 0);
CALL loops(-1, -1);
CALL loops(499, abs(-7) + abs(-7), abs(-7) + abs(-7));
CALL loops(20, 0);
CALL loops(NULL, 0);
CREATE PROCEDURE forever() AS BEGIN LOOP NULL; END LOOP; END;
CALL forever();
-- Without quotes.
CREATE PROCEDURE bare(a INT) AS DECLARE b INT := a; BEGIN IF b > 1 THEN RAISE NOTICE '%', CASE WHEN b > 2 THEN 'many' ELSE 'two' END; END IF; END; CALL bare(3);
-- What it needs stays.
DROP TABLE accounts;
-- Refused.
CREATE PROCEDURE p(a INT) PARTITION ON TABLE accounts COLUMN id AS SELECT count(*) FROM accounts;
CREATE PROCEDURE p(a INT) PARTITION ON TABLE accounts COLUMN owner AS SELECT 1;
CREATE PROCEDURE p(a INT) PARTITION ON TABLE accounts COLUMN id PARAMETER 1 AS SELECT 1;
CREATE PROCEDURE p(a INT) PARTITION ON TABLE accounts COLUMN id AS BEGIN a := 2; END;
CREATE PROCEDURE p(balance INT) AS BEGIN UPDATE accounts SET balance = balance + 1 WHERE id = 1; END;
CREATE PROCEDURE p() AS BEGIN x := 2; END;
CREATE PROCEDURE p() AS BEGIN SELECT 1; END;
CREATE PROCEDURE p() AS BEGIN RETURN NEXT; END;
CREATE PROCEDURE p() AS BEGIN EXIT; END;
CREATE PROCEDURE p() AS BEGIN RAISE 'a % b'; END;
CREATE PROCEDURE p() AS BEGIN EXECUTE 'SELECT 1'; END;
CREATE PROCEDURE p() AS BEGIN IF 1 THEN NULL; END; END;
CREATE PROCEDURE p() LANGUAGE perl AS 'x';
CREATE PROCEDURE p(a INT, a INT) AS BEGIN NULL; END;
CREATE PROCEDURE p(a WHATEVER) AS BEGIN NULL; END;
CREATE PROCEDURE p() AS $$ BEGIN
  UPDATE nowhere SET a = 1;
END $$;
-- A row of another partition.
CREATE PROCEDURE stray(a INT, b INT) PARTITION ON TABLE accounts COLUMN id AS BEGIN UPDATE accounts SET balance = 0 WHERE id = b; END;
CALL stray(1, 1);
CALL stray(1, 2);
CALL stray(1, 3);
SELECT * FROM accounts ORDER BY id;
DROP PROCEDURE stray, rich, balance_of, pay_all, book, transfer, loops, forever, bare;
DROP TABLE accounts, bookings;
