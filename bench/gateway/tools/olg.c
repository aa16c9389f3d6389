// olg: a generator of HTTP/1.1 load on the loopback interface, one thread, one epoll. It prints one line of JSON.
//
//   olg -p PORT -c CONNECTIONS -n CALLS -d SECONDS            closed loop: each connection calls as soon as it was answered
//   olg -p PORT -c CONNECTIONS -r RATE -d SECONDS             open loop: Poisson arrivals; latency counts from the scheduled
//                                                             time, so a call that waits for a connection waits for the proxy
//   olg -p PORT -i CONNECTIONS -w SECONDS                     idle: one call on each connection, then all are held
//
// -n and -d bound every loop, and 3 s after the end nobody waits any longer.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  int fd, busy, chunked;
  uint64_t since;    // when its call was due
  long need, got;    // bytes of the body: -1 = the head is not complete
  size_t head_size;
  char head[4096];
} conn;

static int port = 0, ep = -1;
static char request[256];
static size_t request_size;
static uint64_t answered, failed, not200;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

// The histogram has 64 buckets for each power of two, so that a bucket is at most 1.6 % wide.
enum { SUB = 64, BUCKETS = 64 * SUB };
static uint64_t buckets[BUCKETS];

static void record(uint64_t ns) {
  int high = ns ? 63 - __builtin_clzll(ns) : 0, shift = high >= 7 ? high - 6 : 0;
  int i = shift * SUB + (ns >> shift);
  buckets[i < BUCKETS ? i : BUCKETS - 1]++;
  answered++;
}

static double quantile_us(double q) {
  uint64_t rank = ceil(q * answered), seen = 0;
  for (int i = 0; i < BUCKETS; i++) {
    seen += buckets[i];
    if (seen && seen >= rank) {
      int shift = i < 2 * SUB ? 0 : i / SUB - 1;
      return (i - shift * SUB + 0.5) * pow(2, shift) / 1e3;
    }
  }
  return 0;
}

static int dial(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  for (int i = 0; i < 3; i++) {
    if (!connect(fd, (void *)&a, sizeof a)) {
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return fd;
    }
    usleep(20000);
  }
  close(fd);
  return -1;
}

static int redial(conn *c) {
  if (c->fd >= 0)
    close(c->fd);
  c->busy = 0;
  c->fd = dial();
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  return c->fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e) == 0;
}

static void call(conn *c, uint64_t due) {
  c->since = due;
  c->busy = 1;
  c->chunked = 0;
  c->need = -1;
  c->got = c->head_size = 0;
  // A request fits the socket's buffer; where it does not, the connection is broken, and reading says so.
  if (send(c->fd, request, request_size, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
    shutdown(c->fd, SHUT_RDWR);
}

// head takes what came of a head; it returns how many bytes of data belong to it, or -1 if it is bad.
static ssize_t head(conn *c, const char *data, size_t n) {
  size_t room = sizeof c->head - 1 - c->head_size, take = n < room ? n : room, before = c->head_size;
  memcpy(c->head + before, data, take);
  c->head_size += take;
  c->head[c->head_size] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end)
    return take == n ? (ssize_t)n : -1;
  end[2] = 0;
  if (strncmp(c->head + 9, "200", 3))
    not200++;
  char *length = strcasestr(c->head, "\r\ncontent-length:");
  c->chunked = !length && strcasestr(c->head, "\r\ntransfer-encoding:");
  if (!length && !c->chunked)
    return -1;
  c->need = length ? atol(length + 17) : 0;
  return end + 4 - c->head - before;
}

// receive returns 1 when the answer is complete, 0 when there is more to come, -1 when the connection is of no use.
static int receive(conn *c) {
  static char data[128 << 10];
  for (;;) {
    ssize_t n = recv(c->fd, data, sizeof data, MSG_DONTWAIT), used = 0;
    if (n <= 0)
      return n < 0 && errno == EAGAIN ? 0 : -1;
    if (c->need < 0 && (used = head(c, data, n)) < 0)
      return -1;
    c->got += n - used;
    if (c->need >= 0 && (c->chunked ? n >= 5 && !memcmp(data + n - 5, "0\r\n\r\n", 5) : c->got >= c->need))
      return 1;
  }
}

static int closes(const conn *c) { return strcasestr(c->head, "\r\nconnection: close") != 0; }

static int hold_idle(int count, double seconds) {
  uint64_t ok = 0;
  for (int i = 0; i < count; i++) {
    conn c = {.fd = dial()}; // stays open until the program ends
    if (c.fd < 0) {
      failed++;
      continue;
    }
    call(&c, now());
    int r;
    for (uint64_t end = now() + 2000000000ull; (r = receive(&c)) == 0 && now() < end;)
      ;
    if (r == 1)
      ok++;
    else
      failed++;
  }
  printf("{\"ok\":%lu,\"err\":%lu}\n", ok, failed);
  fflush(stdout);
  usleep(seconds * 1e6);
  return 0;
}

// answer handles what came on a busy connection; it returns 1 if the connection is free again.
static int answer(conn *c) {
  int r = receive(c);
  if (r == 0)
    return 0;
  if (r == 1)
    record(now() - c->since);
  else
    failed++;
  c->busy = 0;
  if (r < 0 || closes(c))
    redial(c);
  return 1;
}

// loop makes calls until n are made or the time is up, then waits for their answers.
static void loop(conn **idle, int idles, double rate, uint64_t n, uint64_t start, uint64_t end) {
  enum { WAITING = 1 << 20 }; // calls that are due while no connection is free; the oldest goes first
  static uint64_t due[WAITING];
  uint64_t first = 0, last = 0, issued = 0, next = start;
  srand48(42);
  for (struct epoll_event events[256];;) {
    uint64_t t = now();
    int done = t >= end || issued >= n;
    if ((done && answered + failed >= issued) || t > end + 3000000000ull)
      return;
    for (; rate > 0 && !done && next <= t && issued < n && last - first < WAITING; issued++) {
      due[last++ % WAITING] = next;
      next += -log(1 - drand48()) * 1e9 / rate;
    }
    for (; rate <= 0 && !done && idles && issued < n; issued++)
      call(idle[--idles], now());
    while (idles && first < last)
      call(idle[--idles], due[first++ % WAITING]);
    struct timespec wait = {0, 100000000};
    t = now();
    if (rate > 0 && !done && next < t + wait.tv_nsec)
      wait.tv_nsec = next > t ? next - t : 0;
    int k = epoll_pwait2(ep, events, 256, &wait, 0);
    for (int i = 0; i < k; i++) {
      conn *c = events[i].data.ptr;
      if (!c->busy)
        redial(c); // closed by the other side while idle
      else if (answer(c))
        idle[idles++] = c;
    }
  }
}

int main(int argc, char **argv) {
  int conns = 64, idle = 0;
  double rate = 0, seconds = 5, hold = 3;
  uint64_t n = ~0ull;
  for (int o; (o = getopt(argc, argv, "p:c:r:n:d:i:w:")) > 0;)
    switch (o) {
    case 'p': port = atoi(optarg); break;
    case 'c': conns = atoi(optarg); break;
    case 'r': rate = atof(optarg); break;
    case 'n': n = atoll(optarg); break;
    case 'd': seconds = atof(optarg); break;
    case 'i': idle = atoi(optarg); break;
    case 'w': hold = atof(optarg); break;
    default: return 2;
    }
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1000);
  request_size = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: olg\r\nAccept: */*\r\n\r\n", port);
  if (idle)
    return hold_idle(idle, hold);
  ep = epoll_create1(0);
  conn *all = calloc(conns, sizeof *all), **free_ones = calloc(conns, sizeof *free_ones);
  for (int i = 0; i < conns; i++) {
    all[i].fd = -1;
    if (!redial(&all[i])) {
      fprintf(stderr, "olg: nobody answers at port %d\n", port);
      return 1;
    }
    free_ones[i] = &all[i];
  }
  uint64_t start = now();
  loop(free_ones, conns, rate, n, start, start + seconds * 1e9);
  double took = (now() - start) / 1e9;
  printf("{\"n\":%lu,\"err\":%lu,\"non200\":%lu,\"sec\":%.3f,\"rps\":%.0f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f}\n", answered, failed, not200, took,
         answered / took, quantile_us(.5), quantile_us(.99), quantile_us(.999));
  return 0;
}
