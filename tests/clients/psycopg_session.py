"""A session as psycopg's users write it; the arguments are the SQL port, and several, at the first of which nobody listens."""

import datetime
import decimal
import sys

import psycopg

WHERE = f"host=127.0.0.1 port={sys.argv[1]} user=volt dbname=volt"

with psycopg.connect(WHERE, autocommit=True) as connection:
    cursor = connection.cursor()
    cursor.execute(
        "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, balance NUMERIC(12, 2), born TIMESTAMP, photo BYTEA)"
        " WITH REPLICATION = 2"
    )
    born = datetime.datetime(1990, 5, 17, 12, 30, 15, 250000)
    people = [(n, f"person {n}", decimal.Decimal(n) / 4, born, bytes([n, 0, 255])) for n in range(1, 51)]
    cursor.executemany("INSERT INTO people VALUES (%s, %s, %s, %s, %s)", people)

    # Server-side parameters, in text and in binary form; the sixth execution is prepared.
    for binary in (False, True):
        for _ in range(7):
            rows = cursor.execute("SELECT * FROM people WHERE id = %s", (7,), binary=binary).fetchall()
            assert rows == [(7, "person 7", decimal.Decimal("1.75"), born, b"\x07\x00\xff")], rows

    # Parameters whose types follow from what they stand with.
    for statement, parameters, wanted in (
        ("SELECT name FROM people WHERE id = %s::int", (7,), "person 7"),
        ("SELECT name FROM people WHERE id = CAST(%s AS BIGINT)", ("7",), "person 7"),
        ("SELECT count(*) FROM people WHERE (%s::int IS NULL OR id < %s)", (None, 3), 50),
        ("SELECT count(*) FROM people WHERE balance >= COALESCE(%s, balance)", (decimal.Decimal("12.25"),), 2),
        ("SELECT count(*) FROM people WHERE id IN (%s::int, %s::int)", (1, 2), 2),
        ("SELECT CASE WHEN id = %s THEN name ELSE %s END FROM people WHERE id = %s", (1, "nobody", 2), "nobody"),
        ("SELECT id FROM people ORDER BY id LIMIT %s OFFSET %s", (1, 9), 10),
        ("SELECT %s + GREATEST(%s, id) FROM people WHERE id = 3", (1, 5), 6),
        ("UPDATE people SET balance = balance + %s::numeric, name = COALESCE(%s, name) WHERE id = %s::int RETURNING name",
         (0, None, 7), "person 7"),
    ):
        for binary in (False, True):
            found = cursor.execute(statement, parameters, binary=binary, prepare=True).fetchone()
            assert found == (wanted,), (statement, found)

    assert cursor.execute("SELECT count(*), sum(balance) FROM people").fetchone() == (50, decimal.Decimal("318.75"))
    cursor.execute("UPDATE people SET name = %s WHERE id = %s", ("renamed", 7))
    assert cursor.rowcount == 1
    cursor.execute("DELETE FROM people WHERE id > %s", (40,))
    assert cursor.rowcount == 10
    assert cursor.execute("SELECT name FROM people WHERE id = 7").fetchone() == ("renamed",)
    assert cursor.execute("SELECT name FROM people WHERE id = 41").fetchone() is None

    for statement, state in (
        ("INSERT INTO people VALUES (1, 'again')", "23505"),
        ("INSERT INTO people (id) VALUES (99)", "23502"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELEC", "42601"),
    ):
        try:
            cursor.execute(statement)
            raise AssertionError(f"no error: {statement}")
        except psycopg.Error as error:
            assert error.sqlstate == state, (statement, error.sqlstate)

    cursor.execute(
        "CREATE PROCEDURE rename(who INT, new_name TEXT, INOUT old_name TEXT) PARTITION ON TABLE people COLUMN id AS $$"
        " BEGIN SELECT name INTO STRICT old_name FROM people WHERE id = who;"
        " UPDATE people SET name = new_name WHERE id = who; RAISE NOTICE 'renamed %', who; END $$"
    )
    notices = []
    connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    for _ in range(7):
        assert cursor.execute("CALL rename(%s, %s, NULL)", (8, "person 8")).fetchone() == ("person 8",)
    assert notices == ["renamed 8"] * 7, notices
    try:
        cursor.execute("CALL rename(%s, %s, NULL)", (4000, "x"))
        raise AssertionError("no error")
    except psycopg.errors.NoDataFound:
        pass
    cursor.execute("DROP PROCEDURE rename")

    # Ids that the database gives.
    cursor.execute("CREATE TABLE orders (id BIGSERIAL PRIMARY KEY, item TEXT) WITH REPLICATION = 2")
    ids = [cursor.execute("INSERT INTO orders (item) VALUES (%s) RETURNING id", (f"item {n}",)).fetchone() for n in range(7)]
    assert ids == [(n,) for n in range(1, 8)], ids
    assert cursor.execute("SELECT lastval(), currval('orders_id_seq')").fetchone() == (7, 7)
    cursor.executemany("INSERT INTO orders (item) VALUES (%s) RETURNING id", [("more",)] * 3, returning=True)
    more = []
    while True:
        more += cursor.fetchall()
        if not cursor.nextset():
            break
    assert more == [(8,), (9,), (10,)], more
    cursor.execute("UPDATE orders SET item = upper(item) WHERE id > 8 RETURNING item, id * 10 AS tenfold")
    assert cursor.rowcount == 2 and [column.name for column in cursor.description] == ["item", "tenfold"]
    assert sorted(cursor.fetchall()) == [("MORE", 90), ("MORE", 100)]
    cursor.execute("DROP TABLE orders")

    # Many statements in one round trip.
    with connection.pipeline():
        answers = [connection.execute("SELECT name FROM people WHERE id = %s", (n,)) for n in range(1, 41)]
    assert [answer.fetchone()[0] for answer in answers][:3] == ["person 1", "person 2", "person 3"]

# As most programs are: a transaction begins with the first statement, and savepoints are blocks.
with psycopg.connect(WHERE) as connection, psycopg.connect(WHERE) as other:
    connection.execute("UPDATE people SET balance = 1 WHERE id = 1")
    try:
        with connection.transaction():
            connection.execute("INSERT INTO people (id, name) VALUES (1, 'again')")
        raise AssertionError("no error")
    except psycopg.errors.UniqueViolation:
        pass
    assert connection.execute("SELECT balance FROM people WHERE id = 1").fetchone() == (1,)
    assert other.execute("SELECT balance FROM people WHERE id = 1").fetchone() == (decimal.Decimal("0.25"),)
    connection.commit()
    other.execute("UPDATE people SET balance = balance + 1 WHERE id = 1")
    try:
        other.commit()
        raise AssertionError("a lost update")
    except psycopg.errors.SerializationFailure as error:
        assert error.diag.message_hint == "The transaction might succeed if retried."
    connection.execute("DELETE FROM people WHERE id = 2")
    connection.rollback()
    assert connection.execute("SELECT name FROM people WHERE id = 2").fetchone() == ("person 2",)
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
    connection.rollback()
    other.autocommit = True
    other.execute("DROP TABLE people")

# Several hosts: spread by lot, and whoever is not there passed over.
PORTS = sys.argv[2]
HOSTS = ",".join(["127.0.0.1"] * len(PORTS.split(",")))
MANY = f"host={HOSTS} port={PORTS} user=volt dbname=volt load_balance_hosts=random options='-c volt.read_from=backup'"
if psycopg.pq.version() >= 160000:
    nodes = set()
    for _ in range(30):
        with psycopg.connect(MANY, autocommit=True) as connection:
            nodes |= {row[0] for row in connection.execute("SELECT node_id FROM system.memory")}
            assert connection.execute("SHOW volt.read_from").fetchone() == ("backup",)
    assert len(nodes) == len(PORTS.split(",")) - 1, nodes

print("ok")
