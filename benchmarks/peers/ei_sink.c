/* The peer of the benchmarks with libei, the C library that comes with Erlang: what bench_peer.erl does for W1 to W4.
 *
 *     ei_sink NAME@HOST          (ZENMON_COOKIE holds the cookie, ERL_EPMD_PORT epmd's port)
 *
 * Prints "ready libei", ends when its standard input does. libei makes no terms: pids of bulk terms are decoded into an
 * array of structs and encoded from there. A thread for each connection; each has its own count and its own bulk.
 */
#include <ei.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHECK(call) do { if ((call) < 0) die(#call, __LINE__); } while (0)

typedef struct {
    ei_cnode *node;
    int fd;
    long count;
    char kind[MAXATOMLEN];   /* the bulk: dead_summary or process, and its pids */
    erlang_pid owner;
    erlang_pid *pids;
    int pids_count;
    ei_x_buff out;
} connection;

static void die(const char *what, int line)
{
    fprintf(stderr, "ei_sink.c:%d: %s failed (erl_errno %d)\n", line, what, erl_errno);
    exit(1);
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

/* Begins a message {First, Second}, whose elements the caller appends. */
static void begin_pair(connection *c)
{
    c->out.index = 0;
    CHECK(ei_x_encode_version(&c->out));
    CHECK(ei_x_encode_tuple_header(&c->out, 2));
}

static void send_out(connection *c, erlang_pid *to)
{
    CHECK(ei_send(c->fd, to, c->out.buff, c->out.index));
}

static int decode_tuple(const char *data, int *index)
{
    int arity;
    CHECK(ei_decode_tuple_header(data, index, &arity));
    return arity;
}

/* [{Pid, normal}] or [{subscribe, Pid}] into the array. */
static void decode_items(connection *c, const char *data, int *index, int pid_first)
{
    int count, i;
    char atom[MAXATOMLEN];
    CHECK(ei_decode_list_header(data, index, &count));
    c->pids = realloc(c->pids, (count ? count : 1) * sizeof(erlang_pid));
    if (c->pids == NULL)
        die("realloc", __LINE__);
    for (i = 0; i < count; i++) {
        decode_tuple(data, index);
        if (pid_first)
            CHECK(ei_decode_pid(data, index, &c->pids[i]));
        CHECK(ei_decode_atom(data, index, atom));
        if (!pid_first)
            CHECK(ei_decode_pid(data, index, &c->pids[i]));
    }
    c->pids_count = count;
}

static void encode_bulk(connection *c)
{
    int i, summary = strcmp(c->kind, "dead_summary") == 0;
    CHECK(ei_x_encode_tuple_header(&c->out, summary ? 2 : 3));
    CHECK(ei_x_encode_atom(&c->out, c->kind));
    if (!summary)
        CHECK(ei_x_encode_pid(&c->out, &c->owner));
    CHECK(ei_x_encode_list_header(&c->out, c->pids_count));
    for (i = 0; i < c->pids_count; i++) {
        CHECK(ei_x_encode_tuple_header(&c->out, 2));
        if (!summary)
            CHECK(ei_x_encode_atom(&c->out, "subscribe"));
        CHECK(ei_x_encode_pid(&c->out, &c->pids[i]));
        if (summary)
            CHECK(ei_x_encode_atom(&c->out, "normal"));
    }
    CHECK(ei_x_encode_empty_list(&c->out));
}

static void blast(connection *c, erlang_pid *dest, long count)
{
    for (; count > 0; count--) {
        begin_pair(c);
        CHECK(ei_x_encode_atom(&c->out, "$gen_cast"));
        CHECK(ei_x_encode_tuple_header(&c->out, 3));
        CHECK(ei_x_encode_atom(&c->out, "work"));
        CHECK(ei_x_encode_long(&c->out, count));
        CHECK(ei_x_encode_binary(&c->out, "payload", 7));
        send_out(c, dest);
    }
}

static void ask_echo(connection *c, long left, int caller)
{
    erlang_ref ref;
    CHECK(ei_make_ref(c->node, &ref));
    ref.n[0] = caller;       /* the answer says whose it is */
    c->out.index = 0;
    CHECK(ei_x_encode_version(&c->out));
    CHECK(ei_x_encode_tuple_header(&c->out, 3));
    CHECK(ei_x_encode_atom(&c->out, "$gen_call"));
    CHECK(ei_x_encode_tuple_header(&c->out, 2));
    CHECK(ei_x_encode_pid(&c->out, ei_self(c->node)));
    CHECK(ei_x_encode_ref(&c->out, &ref));
    CHECK(ei_x_encode_tuple_header(&c->out, 2));
    CHECK(ei_x_encode_atom(&c->out, "echo"));
    CHECK(ei_x_encode_long(&c->out, left));
    CHECK(ei_reg_send(c->node, c->fd, "echo", c->out.buff, c->out.index));
}

static int receive(connection *c, ei_x_buff *in)
{
    erlang_msg message;
    int got;
    do {
        got = ei_xreceive_msg(c->fd, &message, in);
    } while (got == ERL_TICK);
    return got == ERL_MSG && (message.msgtype == ERL_SEND || message.msgtype == ERL_REG_SEND) ? 0 : -1;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(int percent, const double *sorted, long count)
{
    long nth = (count * percent + 50) / 100;
    return sorted[(nth > 0 ? nth : 1) - 1];
}

/* `callers` requests under way at once, `calls` in all. */
static void call_me(connection *c, ei_x_buff *in, erlang_pid *from, erlang_ref *ref, long calls, int callers)
{
    long each = calls / callers > 0 ? calls / callers : 1, done = 0, answer;
    double *latencies = malloc(each * callers * sizeof(double)), *asked = malloc(callers * sizeof(double));
    long *left = malloc(callers * sizeof(long));
    int i, version, index;
    erlang_ref answered;
    if (!latencies || !asked || !left)
        die("malloc", __LINE__);
    for (i = 0; i < callers; i++) {
        left[i] = each;
        asked[i] = now_us();
        ask_echo(c, each, i);
    }
    while (done < each * callers) {
        CHECK(receive(c, in));
        index = 0;
        CHECK(ei_decode_version(in->buff, &index, &version));
        decode_tuple(in->buff, &index);
        CHECK(ei_decode_ref(in->buff, &index, &answered));
        CHECK(ei_decode_long(in->buff, &index, &answer));
        i = answered.n[0];
        if (i >= callers || answer != left[i])
            die("an answer that was not asked for", __LINE__);
        latencies[done++] = now_us() - asked[i];
        if (--left[i] > 0) {
            asked[i] = now_us();
            ask_echo(c, left[i], i);
        }
    }
    qsort(latencies, done, sizeof(double), compare);
    c->out.index = 0;
    CHECK(ei_x_encode_version(&c->out));
    CHECK(ei_x_encode_tuple_header(&c->out, 3));
    CHECK(ei_x_encode_ref(&c->out, ref));
    CHECK(ei_x_encode_double(&c->out, percentile(50, latencies, done)));
    CHECK(ei_x_encode_double(&c->out, percentile(99, latencies, done)));
    send_out(c, from);
    free(latencies);
    free(asked);
    free(left);
}

/* {'$gen_call', {Pid, Tag}, {echo, Term}}: {Tag, Term}, whatever these are, goes to Pid. */
static void answer_call(connection *c, const char *data, int *index)
{
    erlang_pid from;
    char atom[MAXATOMLEN];
    int tag, tag_end, term;
    decode_tuple(data, index);
    CHECK(ei_decode_pid(data, index, &from));
    tag = *index;
    CHECK(ei_skip_term(data, index));
    tag_end = *index;
    decode_tuple(data, index);
    CHECK(ei_decode_atom(data, index, atom));
    term = *index;
    CHECK(ei_skip_term(data, index));
    begin_pair(c);
    CHECK(ei_x_append_buf(&c->out, data + tag, tag_end - tag));
    CHECK(ei_x_append_buf(&c->out, data + term, *index - term));
    send_out(c, &from);
}

static void take_cast(connection *c, const char *data, int *index)
{
    char atom[MAXATOMLEN], payload[64];
    long number, length;
    decode_tuple(data, index);
    CHECK(ei_decode_atom(data, index, atom));
    if (strcmp(atom, "work") == 0) {
        CHECK(ei_decode_long(data, index, &number));
        CHECK(ei_decode_binary(data, index, payload, &length));
    } else {
        strcpy(c->kind, atom);
        CHECK(ei_decode_pid(data, index, &c->owner));
        decode_items(c, data, index, 0);
    }
    c->count++;
}

static void handle(connection *c, ei_x_buff *in)
{
    const char *data = in->buff;
    int index = 0, version;
    char tag[MAXATOMLEN];
    erlang_pid from;
    erlang_ref ref;
    long number, callers;
    CHECK(ei_decode_version(data, &index, &version));
    decode_tuple(data, &index);
    CHECK(ei_decode_atom(data, &index, tag));
    if (strcmp(tag, "$gen_cast") == 0) {
        take_cast(c, data, &index);
        return;
    }
    if (strcmp(tag, "$gen_call") == 0) {
        answer_call(c, data, &index);
        return;
    }
    CHECK(ei_decode_pid(data, &index, &from));
    CHECK(ei_decode_ref(data, &index, &ref));
    if (strcmp(tag, "report") == 0) {
        begin_pair(c);
        CHECK(ei_x_encode_ref(&c->out, &ref));
        CHECK(ei_x_encode_long(&c->out, c->count));
        send_out(c, &from);
        c->count = 0;
    } else if (strcmp(tag, "blast") == 0) {
        CHECK(ei_decode_long(data, &index, &number));
        blast(c, &from, number);
    } else if (strcmp(tag, "call_me") == 0) {
        CHECK(ei_decode_long(data, &index, &number));
        CHECK(ei_decode_long(data, &index, &callers));
        call_me(c, in, &from, &ref, number, callers);
    } else if (strcmp(tag, "bulk") == 0) {
        decode_tuple(data, &index);
        CHECK(ei_decode_atom(data, &index, c->kind));
        decode_items(c, data, &index, 1);
        begin_pair(c);
        CHECK(ei_x_encode_ref(&c->out, &ref));
        CHECK(ei_x_encode_atom(&c->out, "ok"));
        send_out(c, &from);
    } else if (strcmp(tag, "bulk_back") == 0) {
        CHECK(ei_decode_long(data, &index, &number));
        for (; number > 0; number--) {
            begin_pair(c);
            CHECK(ei_x_encode_ref(&c->out, &ref));
            encode_bulk(c);
            send_out(c, &from);
        }
    } else {
        fprintf(stderr, "no message of the benchmarks: %s\n", tag);
        exit(1);
    }
}

static void *serve(void *argument)
{
    connection *c = argument;
    ei_x_buff in;
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    CHECK(ei_x_new(&in));
    CHECK(ei_x_new(&c->out));
    for (;;) {
        in.index = 0;
        if (receive(c, &in) < 0)
            break;
        handle(c, &in);
    }
    close(c->fd);
    return NULL;
}

static void *end_with_input(void *argument)
{
    char byte;
    (void)argument;
    while (read(0, &byte, 1) > 0)
        ;
    exit(0);
}

int main(int argc, char **argv)
{
    ei_cnode node;
    ErlConnect other;
    struct in_addr address;
    pthread_t thread;
    char alive[MAXATOMLEN], *at;
    int port = 0, listening, fd;
    const char *cookie = getenv("ZENMON_COOKIE");
    if (argc != 2 || cookie == NULL || (at = strchr(argv[1], '@')) == NULL || at - argv[1] >= MAXATOMLEN) {
        fprintf(stderr, "usage: ZENMON_COOKIE=... ei_sink NAME@HOST\n");
        return 2;
    }
    memcpy(alive, argv[1], at - argv[1]);
    alive[at - argv[1]] = 0;
    address.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(ei_init());
    CHECK(ei_connect_xinit(&node, at + 1, alive, argv[1], &address, cookie, 1));
    CHECK(listening = ei_listen(&node, &port, 5));
    CHECK(ei_publish(&node, port));
    if (pthread_create(&thread, NULL, end_with_input, NULL) != 0)
        die("pthread_create", __LINE__);
    printf("ready libei\n");
    fflush(stdout);
    for (;;) {
        connection *c = calloc(1, sizeof *c);
        if (c == NULL)
            die("calloc", __LINE__);
        CHECK(fd = ei_accept(&node, listening, &other));
        c->node = &node;
        c->fd = fd;
        if (pthread_create(&thread, NULL, serve, c) != 0)
            die("pthread_create", __LINE__);
    }
}
