-- An INT column that a BIGINT is compared with is found by its key and its indexes as by an INT.
CREATE TABLE narrow (id INT, seq INT, n INT, PRIMARY KEY (id, seq)) PARTITION BY (id);
INSERT INTO narrow VALUES (1, 1, 10), (1, 2, 20), (1, 3, 30), (2, 1, 40);
CREATE INDEX narrow_n ON narrow (n) WHERE n + 1 > 11;
CREATE PROCEDURE add(who BIGINT, since BIGINT, OUT total BIGINT) PARTITION ON TABLE narrow COLUMN id AS BEGIN SELECT count(*) INTO total FROM narrow WHERE id = who AND seq >= since - 1; UPDATE narrow SET n = n + 1 WHERE id = who AND seq = since; END;
CALL add(1, 2);
CALL add(1, 2);
CALL add(2, 9000000000);
SELECT * FROM narrow ORDER BY id, seq;
EXPLAIN SELECT n FROM narrow WHERE id = 1 AND seq > 9000000000;
SELECT n FROM narrow WHERE id = 1 AND seq < 9000000000 ORDER BY seq;
SELECT n FROM narrow WHERE id = 9000000000;
DROP PROCEDURE add;
DROP TABLE narrow;
