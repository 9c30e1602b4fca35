CREATE TABLE source (id INT PRIMARY KEY, grp TEXT, n BIGINT);
CREATE TABLE target (id BIGINT PRIMARY KEY, label VARCHAR(10) NOT NULL DEFAULT 'none', total NUMERIC(10,2), at TIMESTAMP DEFAULT now());
INSERT INTO source VALUES (1, 'a', 10), (2, 'a', 20), (3, 'b', 30), (4, 'c', NULL);
INSERT INTO target (id, label, total) SELECT id, grp, n FROM source;
SELECT id, label, total, at IS NULL FROM target ORDER BY id;
INSERT INTO target (id, total) SELECT id + 100, n * 2 FROM source WHERE n > 10;
SELECT id, label, total FROM target WHERE id > 100 ORDER BY id;
-- Of aggregates, joins, CTEs and sets, of the table itself, and of none.
INSERT INTO target (id, label, total) SELECT 200 + row_number() OVER (ORDER BY grp), grp, sum(n) FROM source GROUP BY grp;
INSERT INTO target (id, total) WITH big AS (SELECT id, n FROM source WHERE n >= 20) SELECT b.id + 300, t.total FROM big b JOIN target t ON t.id = b.id;
INSERT INTO target (id, total) SELECT id + 1000, total FROM target WHERE id < 10;
INSERT INTO target (id) SELECT 400 UNION ALL SELECT 401;
INSERT INTO target (id) VALUES ((SELECT max(id) + 1 FROM target));
INSERT INTO target (id) SELECT id FROM source WHERE n > 1000;
SELECT id, label, total FROM target WHERE id >= 200 ORDER BY id;
-- All or nothing.
INSERT INTO target (id) SELECT id + 500 FROM source UNION ALL SELECT 1;
INSERT INTO target (id, label) SELECT id + 500, CASE WHEN id = 4 THEN 'far too long a label' ELSE 'ok' END FROM source;
INSERT INTO target (id, label) SELECT id + 500, NULL FROM source;
SELECT count(*) FROM target WHERE id > 500 AND id < 600;
INSERT INTO target (id, label) SELECT id FROM source;
INSERT INTO target (id, nobody) SELECT id, id FROM source;
INSERT INTO target SELECT id FROM nobody;
-- ON CONFLICT, RETURNING
INSERT INTO target (id, total) SELECT id, n FROM source ON CONFLICT (id) DO UPDATE SET total = target.total + excluded.total;
INSERT INTO target (id, total) SELECT id, 0 FROM source WHERE id = 4 ON CONFLICT (id) DO NOTHING RETURNING id;
INSERT INTO target (id, label) SELECT 600, 'new' RETURNING id, label, total;
INSERT INTO target (id, label) SELECT 700 + id, 'new' FROM source WHERE id = 2 RETURNING id * 2, label;
SELECT id, label, total FROM target WHERE id < 5 ORDER BY id;
-- Sequences: each row its own.
CREATE TABLE numbered (id SERIAL PRIMARY KEY, other BIGINT GENERATED ALWAYS AS IDENTITY, grp TEXT);
INSERT INTO numbered (grp) SELECT grp FROM source;
SELECT count(DISTINCT id), count(DISTINCT other), count(grp) FROM numbered;
INSERT INTO numbered (id, other, grp) SELECT id + 1000, id, grp FROM source;
INSERT INTO numbered (id, other, grp) OVERRIDING SYSTEM VALUE SELECT id + 1000, id, grp FROM source;
INSERT INTO numbered SELECT id + 2000, id, grp FROM source;
SELECT count(*) FROM numbered;
-- In a procedure, of a replicated table, EXPLAIN.
CREATE TABLE kinds (grp TEXT PRIMARY KEY, n BIGINT) REPLICATED;
CREATE PROCEDURE refresh_kinds(least BIGINT, OUT put BIGINT) AS BEGIN INSERT INTO kinds SELECT grp, count(*) FROM source WHERE n >= least GROUP BY grp; GET DIAGNOSTICS put = ROW_COUNT; END;
CALL refresh_kinds(20);
SELECT * FROM kinds ORDER BY grp;
CALL refresh_kinds(20);
INSERT INTO numbered (id, grp) SELECT nextval('numbered_id_seq'), grp FROM source;
SELECT count(DISTINCT id), count(DISTINCT other), count(grp) FROM numbered;
CREATE PROCEDURE here(who INT) PARTITION ON TABLE source COLUMN id AS BEGIN INSERT INTO source SELECT id + 1, grp, n FROM source WHERE id = who; END;
DROP PROCEDURE refresh_kinds;
DROP TABLE kinds;
DROP TABLE numbered;
DROP TABLE source, target;
