import com.ericsson.otp.erlang.*;

/**
 * Calls functions of a node with JInterface, the Java library that comes with Erlang: sendRPC() for each call, on one
 * connection.
 *
 * <pre>java -cp OtpErlang.jar RpcClient.java NODE {MODULE FUNCTION NUMBERS}...      NUMBERS: "1,2", or nothing</pre>
 *
 * ZENMON_COOKIE holds the cookie, ERL_EPMD_PORT epmd's port. Prints each answer as a term on a line of its own.
 */
public final class RpcClient {
    public static void main(String[] words) throws Exception {
        OtpSelf self = new OtpSelf("rpc_client@127.0.0.1", System.getenv("ZENMON_COOKIE"));
        OtpConnection connection = self.connect(new OtpPeer(words[0]));
        for (int at = 1; at + 2 < words.length; at += 3) {
            String[] numbers = words[at + 2].isEmpty() ? new String[0] : words[at + 2].split(",");
            OtpErlangObject[] arguments = new OtpErlangObject[numbers.length];
            for (int i = 0; i < numbers.length; i++) {
                arguments[i] = new OtpErlangLong(Long.parseLong(numbers[i]));
            }
            connection.sendRPC(words[at], words[at + 1], new OtpErlangList(arguments));
            System.out.println(connection.receiveRPC());
        }
        connection.close();
    }
}
