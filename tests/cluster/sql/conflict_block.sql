-- One session
CREATE TABLE seen (id INT PRIMARY KEY, times INT NOT NULL DEFAULT 1);
INSERT INTO seen VALUES (1), (2);
BEGIN;
INSERT INTO seen VALUES (1), (3) ON CONFLICT (id) DO UPDATE SET times = seen.times + 1 RETURNING *;
INSERT INTO seen VALUES (1), (3) ON CONFLICT (id) DO UPDATE SET times = seen.times + 1 RETURNING *;
DELETE FROM seen WHERE id = 2;
INSERT INTO seen VALUES (2, 7) ON CONFLICT (id) DO UPDATE SET times = 0 RETURNING *;
INSERT INTO seen VALUES (2, 8) ON CONFLICT DO NOTHING RETURNING *;
COMMIT;
SELECT * FROM seen ORDER BY id;
-- Columns that came later, and went.
ALTER TABLE seen ADD COLUMN place TEXT NOT NULL DEFAULT 'home', DROP COLUMN times;
INSERT INTO seen VALUES (1, 'work'), (4, 'work') ON CONFLICT (id) DO UPDATE SET place = seen.place || ' and ' || excluded.place;
SELECT * FROM seen ORDER BY id;
ALTER TABLE seen ADD COLUMN more INT DEFAULT 5;
INSERT INTO seen (id, place) VALUES (1, 'there') ON CONFLICT (id) DO UPDATE SET more = seen.more + excluded.more RETURNING *;
DROP TABLE seen;
