import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Random;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.voltdb.client.Client;
import org.voltdb.client.ClientConfig;
import org.voltdb.client.ClientFactory;
import org.voltdb.client.ClientResponse;
import org.voltdb.client.ProcedureCallback;

/**
 * Calls load: makes the tables and fills them. Calls NAME IN_FLIGHT SECONDS: calls a procedure so many at a time, first for three
 * seconds that don't count, and prints how many it did a second.
 */
public class Calls {
    static final int ROWS = 200_000, ACCOUNTS = 100_000, WAREHOUSES = 4, DISTRICTS = 10, CUSTOMERS = 3_000, ITEMS = 100_000;
    static final String VALUE = "x".repeat(100);
    static final Random RANDOM = new Random();
    static final AtomicLong done = new AtomicLong(), failed = new AtomicLong();
    static Client client;

    interface Call {
        void go(ProcedureCallback callback) throws Exception;
    }

    static int upTo(int most) {
        return 1 + RANDOM.nextInt(most);
    }

    static Call call(String name) {
        return switch (name) {
            case "read" -> callback -> client.callProcedure(callback, "get_value", (long) RANDOM.nextInt(ROWS));
            case "update" -> callback -> client.callProcedure(callback, "set_value", VALUE, (long) RANDOM.nextInt(ROWS));
            case "voter" -> callback -> client.callProcedure(callback, "Vote",
                2_000_000_000L + (long) (RANDOM.nextDouble() * 8_000_000_000L), upTo(6), 2L);
            case "transfer" -> callback -> client.callProcedure(callback, "Transfer",
                (long) RANDOM.nextInt(ACCOUNTS), (long) RANDOM.nextInt(ACCOUNTS), (long) upTo(10));
            case "new-order" -> callback -> {
                int lines = 5 + RANDOM.nextInt(11);
                int[] items = new int[lines], quantities = new int[lines];
                for (int i = 0; i < lines; i++) {
                    items[i] = upTo(ITEMS);
                    quantities[i] = upTo(10);
                }
                client.callProcedure(callback, "NewOrder", upTo(WAREHOUSES), upTo(DISTRICTS), upTo(CUSTOMERS), items, quantities);
            };
            default -> throw new IllegalArgumentException(name);
        };
    }

    static double rate(Call call, int inFlight, int seconds) throws Exception {
        done.set(0);
        Semaphore free = new Semaphore(inFlight);
        long begin = System.nanoTime(), end = begin + seconds * 1_000_000_000L;
        while (System.nanoTime() < end) {
            free.acquire();
            call.go(response -> {
                (response.getStatus() == ClientResponse.SUCCESS ? done : failed).incrementAndGet();
                free.release();
            });
        }
        client.drain();
        return done.get() / ((System.nanoTime() - begin) / 1e9);
    }

    static void load() throws Exception {
        client.callProcedure("@AdHoc", Files.readString(Paths.get("schema.sql")));
        client.callProcedure("@UpdateClasses", Files.readAllBytes(Paths.get("procedures.jar")), null);
        client.callProcedure("@AdHoc", "CREATE PROCEDURE PARTITION ON TABLE votes COLUMN phone FROM CLASS Vote; "
            + "CREATE PROCEDURE FROM CLASS Transfer; CREATE PROCEDURE FROM CLASS LoadItems; "
            + "CREATE PROCEDURE PARTITION ON TABLE warehouse COLUMN w_id FROM CLASS NewOrder;");
        ProcedureCallback check = response -> {
            if (response.getStatus() != ClientResponse.SUCCESS) {
                failed.incrementAndGet();
            }
        };
        for (int id = 1; id <= 6; id++) {
            client.callProcedure("CONTESTANTS.insert", id, "contestant " + id);
        }
        for (int code = 200; code < 1000; code++) {
            client.callProcedure("AREA_CODES.insert", code, code % 2 == 0 ? "NY" : "CA");
        }
        for (long id = 0; id < ROWS; id++) {
            client.callProcedure(check, "KV.insert", id, VALUE);
        }
        for (long id = 0; id < ACCOUNTS; id++) {
            client.callProcedure(check, "ACCOUNTS.insert", id, 1_000_000);
        }
        for (int id = 1; id <= ITEMS; id += 1000) {
            client.callProcedure("LoadItems", id, 1000);
        }
        for (int w = 1; w <= WAREHOUSES; w++) {
            client.callProcedure("WAREHOUSE.insert", w, "warehouse", 0.1, 0);
            for (int id = 1; id <= ITEMS; id++) {
                client.callProcedure(check, "STOCK.insert", w, id, 10 + id % 91, "x".repeat(24), 0, 0, "x".repeat(40));
            }
            for (int d = 1; d <= DISTRICTS; d++) {
                client.callProcedure("DISTRICT.insert", w, d, 0.1, 0, 1);
                for (int c = 1; c <= CUSTOMERS; c++) {
                    client.callProcedure(check, "CUSTOMER.insert", w, d, c, "last " + c, "GC", 0.1, -10, "x".repeat(300));
                }
            }
        }
        client.drain();
    }

    public static void main(String[] arguments) throws Exception {
        client = ClientFactory.createClient(new ClientConfig());
        client.createConnection("127.0.0.1", 21212);
        if (arguments[0].equals("load")) {
            load();
        } else {
            int inFlight = Integer.parseInt(arguments[1]);
            rate(call(arguments[0]), inFlight, 3);
            System.out.printf("%.0f%n", rate(call(arguments[0]), inFlight, Integer.parseInt(arguments[2])));
        }
        client.close();
        if (failed.get() > 0) {
            System.err.println(failed.get() + " calls have failed");
            System.exit(1);
        }
    }
}
