/* Calls functions of a node with libei, the C library that comes with Erlang: ei_rpc() for each call, on one connection.
 *
 *     rpc_client NODE {MODULE FUNCTION ARGS}...      ARGS as ei_x_format takes them: "[1,2]"
 *
 * ZENMON_COOKIE holds the cookie, ERL_EPMD_PORT epmd's port. Prints each answer as a term on a line of its own.
 */
#include <ei.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(call) do { if ((call) < 0) die(#call, __LINE__); } while (0)

static void die(const char *what, int line)
{
    fprintf(stderr, "rpc_client.c:%d: %s failed (erl_errno %d)\n", line, what, erl_errno);
    exit(1);
}

int main(int argc, char **argv)
{
    ei_cnode client;
    int fd;

    CHECK(ei_init());
    CHECK(ei_connect_xinit(&client, "localhost", "rpc_client", "rpc_client@127.0.0.1", NULL, getenv("ZENMON_COOKIE"), 0));
    CHECK(fd = ei_connect(&client, argv[1]));
    for (int at = 2; at + 2 < argc; at += 3) {
        ei_x_buff arguments, answer;
        int index = 0;
        CHECK(ei_x_new(&arguments));
        CHECK(ei_x_new(&answer));
        CHECK(ei_x_format_wo_ver(&arguments, argv[at + 2]));
        CHECK(ei_rpc(&client, fd, argv[at], argv[at + 1], arguments.buff, arguments.index, &answer));
        CHECK(ei_print_term(stdout, answer.buff, &index));
        printf("\n");
        ei_x_free(&arguments);
        ei_x_free(&answer);
    }
    ei_close_connection(fd);
    return 0;
}
