/*
 * The same question without libvirt's client: what `monitor` asks, in libvirt's own protocol, and nothing else. The floor for `monitor`.
 *
 *   cc -O2 -o wire wire.c
 *   wire SOCKET              connects, opens the driver, says farewell: the connection alone
 *   wire SOCKET DOMAIN       the whole question. 0: it runs; 1: it does not, or there is no answer; 2: wrong call
 *
 * A message is a length, program, version, procedure, type, serial and status, each of 4 bytes in network order, and a payload in XDR
 * (libvirt's src/rpc/virnetprotocol.x, src/remote/remote_protocol.x). What is heard is believed: this is a measure, not a client.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { AUTH_LIST = 66, CONNECT_OPEN = 1, CONNECT_CLOSE = 2, LOOKUP_BY_NAME = 23, GET_STATE = 212 };
enum { HEADER = 28, RUNNING = 1 };

static unsigned char buffer[65536];
static uint32_t serial;
static int fd;

static size_t number(unsigned char *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
    return 4;
}

static uint32_t read_number(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

/* Padded to a multiple of 4, as XDR wants it. */
static size_t text(unsigned char *at, const char *value)
{
    size_t length = strlen(value);
    number(at, length);
    memset(at + 4, 0, (length + 3) / 4 * 4);
    memcpy(at + 4, value, length);
    return 4 + (length + 3) / 4 * 4;
}

/* Reads `length` bytes to `at`. */
static int fill(unsigned char *at, size_t length)
{
    while (length > 0) {
        ssize_t count = read(fd, at, length);
        if (count <= 0)
            return -1;
        at += count;
        length -= count;
    }
    return 0;
}

/* One call and its answer; the length of the answer's payload, which lies behind the header in the buffer, or -1. */
static ssize_t ask(uint32_t procedure, const unsigned char *payload, size_t length)
{
    uint32_t head[] = { HEADER + length, 0x20008086, 1, procedure, 0, ++serial, 0 };
    for (int at = 0; at < 7; at++)
        number(buffer + 4 * at, head[at]);
    memcpy(buffer + HEADER, payload, length);
    if (write(fd, buffer, HEADER + length) != (ssize_t)(HEADER + length))
        return -1;
    if (fill(buffer, 4) < 0)
        return -1;
    uint32_t whole = read_number(buffer);
    if (whole < HEADER || whole > sizeof(buffer) || fill(buffer + 4, whole - 4) < 0)
        return -1;
    return read_number(buffer + 24) == 0 ? (ssize_t)(whole - HEADER) : -1;
}

int main(int argc, char **argv)
{
    unsigned char payload[4096];
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (argc < 2 || argc > 3 || strlen(argv[1]) >= sizeof(address.sun_path) || (argc == 3 && strlen(argv[2]) > 1024)) {
        fprintf(stderr, "usage: %s SOCKET [DOMAIN]\n", argv[0]);
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return 1;

    if (ask(AUTH_LIST, payload, 0) < 0)
        return 1;
    size_t length = number(payload, 1); /* a name follows */
    length += text(payload + length, "qemu:///system");
    length += number(payload + length, 1); /* VIR_CONNECT_RO */
    if (ask(CONNECT_OPEN, payload, length) < 0)
        return 1;

    int runs = argc == 2;
    if (argc == 3) {
        ssize_t found = ask(LOOKUP_BY_NAME, payload, text(payload, argv[2]));
        if (found < 0 || (size_t)found > sizeof(payload) - 4)
            return 1;
        memcpy(payload, buffer + HEADER, found);
        number(payload + found, 0); /* flags */
        if (ask(GET_STATE, payload, found + 4) < 8)
            return 1;
        runs = read_number(buffer + HEADER) == RUNNING;
    }
    return ask(CONNECT_CLOSE, payload, 0) == 0 && runs ? 0 : 1;
}
