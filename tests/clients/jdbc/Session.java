import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.HashSet;
import java.util.Set;

/** A session as JDBC's users write it; the arguments are the SQL port, and several, at the first of which nobody listens. */
public class Session {
    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/volt?user=volt&connectTimeout=10&socketTimeout=30";
        try (Connection connection = DriverManager.getConnection(url); Statement plain = connection.createStatement()) {
            plain.execute("CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner VARCHAR(40) NOT NULL, balance NUMERIC(12, 2), "
                + "rate DOUBLE PRECISION, active BOOLEAN, opened TIMESTAMP, note TEXT) WITH REPLICATION = 2");
            Timestamp opened = Timestamp.valueOf("2026-03-04 05:06:07.089");
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)")) {
                for (long id = 1; id <= 100; id++) {
                    insert.setLong(1, id);
                    insert.setString(2, "owner " + id % 10);
                    insert.setBigDecimal(3, BigDecimal.valueOf(id * 150, 2));
                    insert.setDouble(4, id / 8.0);
                    insert.setBoolean(5, id % 2 == 0);
                    insert.setTimestamp(6, opened);
                    insert.setString(7, id % 3 == 0 ? null : "note");
                    insert.addBatch();
                }
                int inserted = 0;
                for (int count : insert.executeBatch()) {
                    inserted += count;
                }
                same(100, inserted);
            }
            // From the fifth execution on the driver uses a named statement and the binary format.
            try (PreparedStatement read = connection.prepareStatement("SELECT * FROM accounts WHERE id = ?")) {
                for (int round = 0; round < 12; round++) {
                    read.setLong(1, 42);
                    try (ResultSet row = read.executeQuery()) {
                        same(true, row.next());
                        same("owner 2", row.getString("owner"));
                        same(new BigDecimal("63.00"), row.getBigDecimal("balance"));
                        same(5.25, row.getDouble("rate"));
                        same(true, row.getBoolean("active"));
                        same(opened, row.getTimestamp("opened"));
                        same(null, row.getString("note"));
                        same(false, row.next());
                    }
                }
            }
            // The type of a parameter follows from what it stands with.
            String optional = "SELECT count(*) FROM accounts WHERE (?::bigint IS NULL OR id = ?) AND owner = COALESCE(?, owner) AND active = ?::boolean";
            try (PreparedStatement search = connection.prepareStatement(optional)) {
                for (int round = 0; round < 12; round++) {
                    search.setInt(1, 42);
                    search.setLong(2, 42);
                    search.setNull(3, Types.VARCHAR);
                    search.setBoolean(4, true);
                    try (ResultSet row = search.executeQuery()) {
                        same(true, row.next());
                        same(1L, row.getLong(1));
                    }
                }
            }
            try (ResultSet row = plain.executeQuery("SELECT owner, count(*), sum(balance) FROM accounts GROUP BY owner ORDER BY owner LIMIT 1")) {
                same(true, row.next());
                same("owner 0", row.getString(1));
                same(10L, row.getLong(2));
                same(new BigDecimal("825.00"), row.getBigDecimal(3));
            }
            same(10, plain.executeUpdate("UPDATE accounts SET balance = balance + 1 WHERE owner = 'owner 3'"));
            same(50, plain.executeUpdate("DELETE FROM accounts WHERE id > 50"));
            refused(plain, "INSERT INTO accounts (id, owner) VALUES (1, 'again')", "23505");
            refused(plain, "INSERT INTO accounts (id) VALUES (999)", "23502");
            refused(plain, "SELECT * FROM nowhere", "42P01");
            try (ResultSet row = plain.executeQuery("SELECT count(*) FROM accounts")) {
                same(true, row.next());
                same(50L, row.getLong(1));
            }
            transactions(connection, plain);
            procedures(connection, plain);
            generatedKeys(connection, plain);
            plain.execute("DROP TABLE accounts");
        }
        severalHosts(arguments[1].split(","));
        System.out.println("ok");
    }

    private static void generatedKeys(Connection connection, Statement plain) throws SQLException {
        plain.execute("CREATE TABLE orders (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item TEXT)");
        String insert = "INSERT INTO orders (item) VALUES (?)";
        try (PreparedStatement one = connection.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            // From the fifth execution on by a named statement and in the binary format.
            for (int round = 1; round <= 12; round++) {
                one.setString(1, "item " + round);
                same(1, one.executeUpdate());
                try (ResultSet keys = one.getGeneratedKeys()) {
                    same(true, keys.next());
                    same((long) round, keys.getLong("id"));
                    same("item " + round, keys.getString("item"));
                    same(false, keys.next());
                }
            }
        }
        try (PreparedStatement many = connection.prepareStatement(insert, new String[] {"id"})) {
            for (int round = 13; round <= 30; round++) {
                many.setString(1, "item " + round);
                many.addBatch();
            }
            same(18, many.executeBatch().length);
            long expected = 13;
            try (ResultSet keys = many.getGeneratedKeys()) {
                while (keys.next()) {
                    same(expected++, keys.getLong(1));
                }
            }
            same(31L, expected);
        }
        try (ResultSet row = plain.executeQuery("UPDATE orders SET item = 'changed' WHERE id > 28 RETURNING item")) {
            same(true, row.next());
            same("changed", row.getString(1));
            same(true, row.next());
            same(false, row.next());
        }
        refused(plain, "INSERT INTO orders VALUES (1, 'given')", "428C9");
        plain.execute("DROP TABLE orders");
    }

    private static void transactions(Connection connection, Statement plain) throws SQLException {
        connection.setAutoCommit(false);
        connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        same(Connection.TRANSACTION_REPEATABLE_READ, connection.getTransactionIsolation());
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        same(1, plain.executeUpdate("UPDATE accounts SET balance = 0 WHERE id = 1"));
        Savepoint savepoint = connection.setSavepoint("before");
        same(49, plain.executeUpdate("DELETE FROM accounts WHERE id > 1"));
        connection.rollback(savepoint);
        connection.commit();
        same(50, plain.executeUpdate("DELETE FROM accounts"));
        connection.rollback();
        // Read by tens: the portal lives from one round trip to the next.
        plain.setFetchSize(10);
        int rows = 0;
        try (ResultSet row = plain.executeQuery("SELECT id FROM accounts")) {
            while (row.next()) {
                rows++;
            }
        }
        same(50, rows);
        plain.setFetchSize(0);
        connection.setAutoCommit(true);
        try (ResultSet row = plain.executeQuery("SELECT balance FROM accounts WHERE id = 1")) {
            same(true, row.next());
            same(new BigDecimal("0.00"), row.getBigDecimal(1));
        }
    }

    private static void procedures(Connection connection, Statement plain) throws SQLException {
        plain.execute("CREATE PROCEDURE pay(who INT, amount NUMERIC(12, 2), OUT has NUMERIC(12, 2))"
            + " PARTITION ON TABLE accounts COLUMN id AS $$ BEGIN"
            + " UPDATE accounts SET balance = balance + amount WHERE id = who;"
            + " IF NOT FOUND THEN RAISE EXCEPTION 'no account %', who; END IF;"
            + " SELECT balance INTO has FROM accounts WHERE id = who; END $$");
        // The sixth execution is a prepared statement of the server's.
        try (PreparedStatement call = connection.prepareStatement("CALL pay(?, ?, NULL)")) {
            for (int paid = 1; paid <= 7; paid++) {
                call.setInt(1, 1);
                call.setBigDecimal(2, new BigDecimal("1.50"));
                try (ResultSet row = call.executeQuery()) {
                    same(true, row.next());
                    same(new BigDecimal("1.50").multiply(new BigDecimal(paid)), row.getBigDecimal("has"));
                }
            }
        }
        refused(plain, "CALL pay(1000, 1, NULL)", "P0001");
        plain.execute("DROP PROCEDURE pay");
    }

    /** Several hosts: spread by lot, and whoever is not there passed over. */
    private static void severalHosts(String[] ports) throws SQLException {
        String hosts = "127.0.0.1:" + String.join(",127.0.0.1:", ports);
        String url = "jdbc:postgresql://" + hosts + "/volt?user=volt&loadBalanceHosts=true&connectTimeout=10&options=-c%20volt.read_from=backup";
        Set<Integer> nodes = new HashSet<>();
        for (int round = 0; round < 30; round++) {
            try (Connection connection = DriverManager.getConnection(url); Statement plain = connection.createStatement()) {
                try (ResultSet row = plain.executeQuery("SELECT node_id FROM system.memory")) {
                    same(true, row.next());
                    nodes.add(row.getInt(1));
                }
                try (ResultSet row = plain.executeQuery("SHOW volt.read_from")) {
                    same(true, row.next());
                    same("backup", row.getString(1));
                }
            }
        }
        same(ports.length - 1, nodes.size());
    }

    private static void refused(Statement statement, String sql, String state) {
        try {
            statement.execute(sql);
        } catch (SQLException error) {
            same(state, error.getSQLState());
            return;
        }
        throw new AssertionError("no error: " + sql);
    }

    private static void same(Object expected, Object found) {
        if (expected == null ? found != null : !expected.equals(found)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }
}
