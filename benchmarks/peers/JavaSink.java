import com.ericsson.otp.erlang.*;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * The peer of the benchmarks with JInterface, the Java library that comes with Erlang: what bench_peer.erl does for W1
 * to W4.
 *
 * <pre>java -cp OtpErlang.jar:. JavaSink NAME@HOST     (ZENMON_COOKIE holds the cookie, ERL_EPMD_PORT epmd's port)</pre>
 *
 * Prints "ready JInterface", ends when its standard input does.
 */
public final class JavaSink {
    private static final OtpErlangAtom OK = new OtpErlangAtom("ok");
    private static final OtpErlangAtom GEN_CALL = new OtpErlangAtom("$gen_call");
    private static final OtpErlangAtom GEN_CAST = new OtpErlangAtom("$gen_cast");
    private static final OtpErlangAtom WORK = new OtpErlangAtom("work");
    private static final OtpErlangAtom ECHO = new OtpErlangAtom("echo");
    private static final OtpErlangBinary PAYLOAD = new OtpErlangBinary("payload".getBytes());

    private final OtpNode node;
    private final OtpMbox mbox;
    private long count;
    private OtpErlangObject bulk;

    private JavaSink(String name, String cookie) throws Exception {
        node = new OtpNode(name, cookie);
        mbox = node.createMbox("sink");
    }

    public static void main(String[] arguments) throws Exception {
        JavaSink sink = new JavaSink(arguments[0], System.getenv("ZENMON_COOKIE"));
        Thread end = new Thread(JavaSink::endWithInput);
        end.setDaemon(true);
        end.start();
        System.out.println("ready JInterface on Java " + System.getProperty("java.version"));
        try {
            while (true) {
                sink.handle((OtpErlangTuple) sink.mbox.receive());
            }
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.exit(1);
        }
    }

    private static void endWithInput() {
        try {
            while (System.in.read() >= 0) {
            }
        } catch (java.io.IOException failure) {
            failure.printStackTrace();
        }
        System.exit(0);
    }

    private static OtpErlangTuple tuple(OtpErlangObject... elements) {
        return new OtpErlangTuple(elements);
    }

    private static long number(OtpErlangObject term) throws OtpErlangRangeException {
        return ((OtpErlangLong) term).longValue();
    }

    private void handle(OtpErlangTuple message) throws Exception {
        String tag = ((OtpErlangAtom) message.elementAt(0)).atomValue();
        switch (tag) {
            case "$gen_cast":
                count++;
                OtpErlangTuple cast = (OtpErlangTuple) message.elementAt(1);
                if (!cast.elementAt(0).equals(WORK)) {
                    bulk = cast;
                }
                return;
            case "$gen_call":
                OtpErlangTuple caller = (OtpErlangTuple) message.elementAt(1);
                OtpErlangTuple request = (OtpErlangTuple) message.elementAt(2);
                mbox.send((OtpErlangPid) caller.elementAt(0), tuple(caller.elementAt(1), request.elementAt(1)));
                return;
            default:
                answer(tag, message, (OtpErlangPid) message.elementAt(1), message.elementAt(2));
        }
    }

    private void answer(String tag, OtpErlangTuple message, OtpErlangPid from, OtpErlangObject ref) throws Exception {
        switch (tag) {
            case "report":
                mbox.send(from, tuple(ref, new OtpErlangLong(count)));
                count = 0;
                break;
            case "blast":
                for (long index = number(message.elementAt(3)); index > 0; index--) {
                    mbox.send(from, tuple(GEN_CAST, tuple(WORK, new OtpErlangLong(index), PAYLOAD)));
                }
                break;
            case "call_me":
                callMe(from, ref, number(message.elementAt(3)), (int) number(message.elementAt(4)));
                break;
            case "bulk":
                bulk = message.elementAt(3);
                mbox.send(from, tuple(ref, OK));
                break;
            case "bulk_back":
                for (long times = number(message.elementAt(3)); times > 0; times--) {
                    mbox.send(from, tuple(ref, bulk));
                }
                break;
            default:
                throw new IllegalArgumentException("no message of the benchmarks: " + message);
        }
    }

    /** `callers` requests under way at once, `calls` in all. */
    private void callMe(OtpErlangPid from, OtpErlangObject ref, long calls, int callers) throws Exception {
        long each = Math.max(1, calls / callers);
        double[] latencies = new double[(int) each * callers];
        Map<OtpErlangObject, long[]> asked = new HashMap<>();
        for (int caller = 0; caller < callers; caller++) {
            ask(from.node(), each, asked);
        }
        for (int done = 0; done < latencies.length; done++) {
            OtpErlangTuple got = (OtpErlangTuple) mbox.receive();
            long[] call = asked.remove(got.elementAt(0));
            if (call == null || call[0] != number(got.elementAt(1))) {
                throw new IllegalStateException("an answer that was not asked for: " + got);
            }
            latencies[done] = (System.nanoTime() - call[1]) / 1e3;
            if (call[0] > 1) {
                ask(from.node(), call[0] - 1, asked);
            }
        }
        Arrays.sort(latencies);
        mbox.send(from, tuple(ref, percentile(50, latencies), percentile(99, latencies)));
    }

    private void ask(String remote, long left, Map<OtpErlangObject, long[]> asked) {
        OtpErlangRef ref = node.createRef();
        asked.put(ref, new long[] {left, System.nanoTime()});
        mbox.send("echo", remote, tuple(GEN_CALL, tuple(mbox.self(), ref), tuple(ECHO, new OtpErlangLong(left))));
    }

    private static OtpErlangDouble percentile(int percent, double[] sorted) {
        long nth = Math.max(1, Math.round(sorted.length * percent / 100.0));
        return new OtpErlangDouble(sorted[(int) nth - 1]);
    }
}
