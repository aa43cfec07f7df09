/* uWebSockets (C++) echo, broadcast or topics, without Node: through the C interface of the library that the Python package
 * socketify carries. Arguments: LIBRARY PORT [--broadcast] [--topics TOTAL EACH] [--tls DIRECTORY]
 * Build: cc -O2 uws.c -o uws -ldl
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The declarations of the C interface that are used here (uWebSockets, capi/libuwebsockets.h). */
struct options {
    const char *key_file_name, *cert_file_name, *passphrase, *dh_params_file_name, *ca_file_name, *ssl_ciphers;
    int ssl_prefer_low_memory_usage;
};
struct listen_config {
    int port;
    const char *host;
    int options;
};
typedef void (*on_listen)(void *socket, struct listen_config config, void *user_data);
typedef void (*on_socket)(void *ws, void *user_data);
typedef void (*on_message)(void *ws, const char *message, size_t length, int opcode, void *user_data);
struct behavior {
    int compression;
    unsigned int max_payload_length;
    unsigned short idle_timeout;
    unsigned int max_backpressure;
    bool close_on_backpressure_limit, reset_idle_timeout_on_send, send_pings_automatically;
    unsigned short max_lifetime;
    void *upgrade;
    on_socket open;
    on_message message;
    void *drain, *ping, *pong, *close, *subscription;
};

static void *(*create_app)(int ssl, struct options options);
static void (*add_ws)(int ssl, void *app, const char *pattern, struct behavior behavior, void *user_data);
static void (*app_listen)(int ssl, void *app, struct listen_config config, on_listen handler, void *user_data);
static void (*app_run)(int ssl, void *app);
static int (*ws_send)(int ssl, void *ws, const char *message, size_t length, int opcode);
static bool (*ws_subscribe)(int ssl, void *ws, const char *topic, size_t length);
static bool (*publish)(int ssl, void *app, const char *topic, size_t topic_length, const char *message, size_t length,
                       int opcode, bool compress);

static void *(*get_loop)(void);
static void (*loop_defer)(void *loop, void (*handler)(void *user_data), void *user_data);

static int ssl;
static void *app;

static void echo(void *ws, const char *message, size_t length, int opcode, void *user_data) {
    (void)user_data;
    ws_send(ssl, ws, message, length, opcode);
}
static void subscribe(void *ws, void *user_data) {
    (void)user_data;
    ws_subscribe(ssl, ws, "all", 3);
}
static void to_all(void *ws, const char *message, size_t length, int opcode, void *user_data) {
    (void)ws, (void)user_data;
    publish(ssl, app, "all", 3, message, length, opcode, false);
}

/* Topics: each connection subscribes to `each` of `total`; each message goes to the next topic. */
static int total = 1, each = 1, opened, place;

static int waiting;
static char copy[1 << 20];
static size_t copy_length;

static int topic(char *name, int number) { return sprintf(name, "topic.%d", number % total); }
static void subscribe_some(void *ws, void *user_data) {
    char name[32];
    (void)user_data;
    for (int i = 0; i < each; i++) ws_subscribe(ssl, ws, name, topic(name, opened + i * (total / each)));
    opened++;
}
/* Within the handler of a message its socket is corked, and nobody else's frames can be gathered: publish after it. */
static void publish_all(void *user_data) {
    char name[32];
    (void)user_data;
    for (; waiting; waiting--)
        publish(ssl, app, name, topic(name, place++ % total), copy, copy_length, 2, false);
}
static void to_next(void *ws, const char *message, size_t length, int opcode, void *user_data) {
    (void)ws, (void)opcode, (void)user_data;
    if (length > sizeof copy) fputs("uws: too large\n", stderr), exit(1);
    memcpy(copy, message, copy_length = length);
    if (!waiting++) loop_defer(get_loop(), publish_all, NULL);
}
static void listening(void *socket, struct listen_config config, void *user_data) {
    (void)config, (void)user_data;
    if (!socket) fputs("uws: could not listen\n", stderr), exit(1);
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fprintf(stderr, "uws: %s\n", dlerror()), exit(1);
    return found;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) return fprintf(stderr, "uws: %s\n", dlerror()), 1;
    *(void **)&create_app = symbol(library, "uws_create_app");
    *(void **)&add_ws = symbol(library, "uws_ws");
    *(void **)&app_listen = symbol(library, "uws_app_listen_with_config");
    *(void **)&app_run = symbol(library, "uws_app_run");
    *(void **)&ws_send = symbol(library, "uws_ws_send");
    *(void **)&ws_subscribe = symbol(library, "uws_ws_subscribe");
    *(void **)&publish = symbol(library, "uws_publish");
    *(void **)&get_loop = symbol(library, "uws_get_loop");
    *(void **)&loop_defer = symbol(library, "uws_loop_defer");
    if (!strcmp(argv[2], "--try")) return 0; /* everything that is needed was found */
    signal(SIGPIPE, SIG_IGN);
    struct options options = {0};
    struct behavior behavior = {.max_payload_length = 64 << 20, .max_backpressure = 256 << 20, .message = echo};
    static char key[4096], cert[4096];
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "--broadcast")) behavior.open = subscribe, behavior.message = to_all;
        if (!strcmp(argv[i], "--topics") && i + 2 < argc) {
            total = atoi(argv[i + 1]), each = atoi(argv[i + 2]);
            behavior.open = subscribe_some, behavior.message = to_next;
        }
        if (!strcmp(argv[i], "--tls") && i + 1 < argc) {
            snprintf(key, sizeof key, "%s/key.pem", argv[i + 1]), snprintf(cert, sizeof cert, "%s/cert.pem", argv[i + 1]);
            options.key_file_name = key, options.cert_file_name = cert, ssl = 1;
        }
    }
    app = create_app(ssl, options);
    add_ws(ssl, app, "/*", behavior, NULL);
    app_listen(ssl, app, (struct listen_config){.port = atoi(argv[2]), .host = "127.0.0.1"}, listening, NULL);
    app_run(ssl, app);
    return 0;
}
