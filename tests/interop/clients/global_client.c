/* Has a name in global with libei, the C library that comes with Erlang, through the node it is connected to.
 *
 *     global_client NODE NAME          registers and unregisters it
 *     global_client NODE NAME wait     registers it, and waits for a signal
 *
 * ZENMON_COOKIE holds the cookie, ERL_EPMD_PORT epmd's port. Prints the node that ei_global_whereis gives for the name,
 * and what ei_global_names gives, each on a line of its own.
 */
#include <ei.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(call) do { if ((call) < 0) die(#call, __LINE__); } while (0)

static void die(const char *what, int line)
{
    fprintf(stderr, "global_client.c:%d: %s failed (erl_errno %d)\n", line, what, erl_errno);
    exit(1);
}

int main(int argc, char **argv)
{
    ei_cnode client;
    erlang_pid found;
    char node[MAXNODELEN + 1];
    char **names;
    int fd, count;

    CHECK(ei_init());
    CHECK(ei_connect_xinit(&client, "localhost", "global_client", "global_client@127.0.0.1", NULL,
                           getenv("ZENMON_COOKIE"), 0));
    CHECK(fd = ei_connect(&client, argv[1]));
    CHECK(ei_global_register(fd, argv[2], ei_self(&client)));
    CHECK(ei_global_whereis(&client, fd, argv[2], &found, node));
    printf("%s\n", node);
    if ((names = ei_global_names(&client, fd, &count)) == NULL)
        die("ei_global_names", __LINE__);
    for (int at = 0; at < count; at++)
        printf("%s\n", names[at]);
    fflush(stdout);
    if (argc > 3)
        pause();
    CHECK(ei_global_unregister(&client, fd, argv[2]));
    ei_close_connection(fd);
    return 0;
}
