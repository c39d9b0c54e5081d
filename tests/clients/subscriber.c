/* A subscriber in C, from the wire contract alone: libzmq and zlib, no library of ours.
 *
 *   cc subscriber.c -o subscriber $(pkg-config --cflags --libs libzmq zlib)
 *   ./subscriber tcp://127.0.0.1:5555 mask/person/ 10
 *
 * prints one JSON line a mask: {"topic":, "seq":, "pixels":}, counted from the payload (raw or deflate). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zmq.h>

enum { MAX_HEADER = 4 << 20, MAX_SIDE = 16384, BUFFER_BYTES = 256 * 1024, QUEUE_MESSAGES = 64 };

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

/* The number after "name": in a flat look at the header; a real client would use its JSON parser. */
static long number(const char *header, const char *name) {
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(header, key);
    return found ? strtol(found + strlen(key), NULL, 10) : -1;
}

/* Bits are most significant first; rows are padded to whole bytes. */
static long count(const unsigned char *bits, long width, long height) {
    long pixels = 0, row_bytes = (width + 7) / 8;
    for (long y = 0; y < height; y++)
        for (long x = 0; x < width; x++) pixels += bits[y * row_bytes + x / 8] >> (7 - x % 8) & 1;
    return pixels;
}

static void receive(zmq_msg_t parts[3], void *socket) {
    int part = 0, more = 1;
    while (more) {
        zmq_msg_t *message = &parts[part < 3 ? part : 2];
        if (part < 3) zmq_msg_init(message);
        if (zmq_msg_recv(message, socket, 0) < 0) die("receive");
        more = zmq_msg_more(message);
        part++;
    }
    if (part != 3) die("a message has not three parts");
}

static void print(zmq_msg_t parts[3]) {
    static char header[MAX_HEADER + 1];
    size_t header_bytes = zmq_msg_size(&parts[1]);
    if (header_bytes > MAX_HEADER) die("header too long");
    memcpy(header, zmq_msg_data(&parts[1]), header_bytes);
    header[header_bytes] = 0;
    if (!strstr(header, "\"v\":\"1.")) { /* another major version: report and skip */
        fprintf(stderr, "skipped: %.40s\n", header);
        return;
    }
    /* The map's own size stands after "replay"; the first width in the header is the source's. */
    const char *map = strstr(header, "\"replay\":");
    long width = map ? number(map, "width") : -1, height = map ? number(map, "height") : -1;
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE) die("no size");
    uLongf size = (uLongf)((width + 7) / 8 * height), room = size;
    unsigned char *bits = malloc(size);
    const void *payload = zmq_msg_data(&parts[2]);
    uLong payload_bytes = (uLong)zmq_msg_size(&parts[2]);
    if (strstr(header, "\"encoding\":\"deflate\"")) {
        if (uncompress(bits, &room, payload, payload_bytes) != Z_OK || room != size) die("bad deflate");
    } else if (strstr(header, "\"encoding\":\"raw\"") && payload_bytes == size) {
        memcpy(bits, payload, size);
    } else {
        die("an encoding that this client does not read");
    }
    printf("{\"topic\":\"%.*s\",\"seq\":%ld,\"pixels\":%ld}\n", (int)zmq_msg_size(&parts[0]),
           (const char *)zmq_msg_data(&parts[0]), number(header, "seq"), count(bits, width, height));
    fflush(stdout);
    free(bits);
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: subscriber ENDPOINT PREFIX COUNT\n"), 2;
    int buffer = BUFFER_BYTES, queue = QUEUE_MESSAGES; /* never CONFLATE: it breaks messages of several parts */
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_SUB);
    zmq_setsockopt(socket, ZMQ_RCVBUF, &buffer, sizeof buffer);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &queue, sizeof queue);
    zmq_setsockopt(socket, ZMQ_SUBSCRIBE, argv[2], strlen(argv[2]));
    if (zmq_connect(socket, argv[1])) die(argv[1]);
    for (long left = strtol(argv[3], NULL, 10); left > 0; left--) {
        zmq_msg_t parts[3];
        receive(parts, socket);
        print(parts);
        for (int i = 0; i < 3; i++) zmq_msg_close(&parts[i]);
    }
    zmq_close(socket);
    zmq_ctx_term(context);
    return 0;
}
