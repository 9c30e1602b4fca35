import org.voltdb.SQLStmt;
import org.voltdb.VoltProcedure;

/** Moves an amount from an account that has it to another one, wherever they are. */
public class Transfer extends VoltProcedure {
    public final SQLStmt balance = new SQLStmt("SELECT balance FROM accounts WHERE id = ?;");
    public final SQLStmt add = new SQLStmt("UPDATE accounts SET balance = balance + ? WHERE id = ?;");

    public long run(long source, long target, long amount) {
        voltQueueSQL(balance, source);
        if (voltExecuteSQL()[0].asScalarLong() < amount) {
            throw new VoltAbortException("there is less than " + amount);
        }
        voltQueueSQL(add, -amount, source);
        voltQueueSQL(add, amount, target);
        voltExecuteSQL(true);
        return 0;
    }
}
