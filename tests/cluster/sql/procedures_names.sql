-- One session: another node may know an older procedure of the name for a moment.
CREATE TABLE things (id INT PRIMARY KEY, name TEXT) WITH REPLICATION = 1;
INSERT INTO things VALUES (1, 'first'), (2, 'second');
CREATE PROCEDURE thing(INT) PARTITION ON TABLE things COLUMN id AS SELECT id, name FROM things WHERE id = $1;
CREATE PROCEDURE thing(INT) AS SELECT 1;
CALL thing(1);
CREATE OR REPLACE PROCEDURE thing(which INT, INOUT new_name TEXT) PARTITION ON TABLE things COLUMN id PARAMETER 0 AS $$
BEGIN
  UPDATE things SET name = new_name WHERE id = which;
  SELECT upper(name) INTO new_name FROM things WHERE id = which;
END $$ LANGUAGE plpgsql;
CALL thing(1);
CALL thing(1, 'other');
ALTER PROCEDURE thing RENAME TO rename_thing;
CALL thing(1, 'third');
CALL rename_thing(2, 'third');
CREATE PROCEDURE all_things() RETURNS TABLE (what TEXT) AS $$ BEGIN RETURN QUERY SELECT name FROM things ORDER BY id; END $$;
CALL all_things();
ALTER PROCEDURE all_things RENAME TO rename_thing;
SELECT name, arguments, returns, language, partition_table, partition_parameter, calls, aborts FROM system.procedures ORDER BY name;
-- A key of another type than the column's is made one of the column's.
CREATE PROCEDURE thing_by_text(TEXT) PARTITION ON TABLE things COLUMN id AS SELECT name FROM things WHERE id = CAST($1 AS INT);
CALL thing_by_text('2');
CALL thing_by_text('x');
/* volt.idempotency_key = 'thing' */ CALL thing_by_text('x');
DROP PROCEDURE thing_by_text;
DROP TABLE things;
DROP PROCEDURE rename_thing(INT, TEXT), all_things;
/* Not there any more. */ DROP PROCEDURE IF EXISTS thing;
DROP PROCEDURE rename_thing;
DROP TABLE things;
