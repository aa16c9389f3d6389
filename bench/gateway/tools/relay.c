// relay PORT TO: passes bytes between each client and a connection of its own to port TO. One thread, one epoll, no HTTP:
// the least that a proxy in user space costs, and so the measure of how fast the machine is right now.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { MAX_FD = 65536 };

static int other[MAX_FD]; // the other end, by descriptor; 0 = none
static int ep;

static void watch(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static void take_all(int listener, struct sockaddr_in to) {
  for (int in; (in = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0;) {
    int out = socket(AF_INET, SOCK_STREAM, 0);
    if (in >= MAX_FD || out < 0 || out >= MAX_FD || connect(out, (void *)&to, sizeof to)) {
      close(in);
      close(out);
      continue;
    }
    fcntl(out, F_SETFL, O_NONBLOCK);
    other[in] = out;
    other[out] = in;
    watch(in);
    watch(out);
  }
}

static void pass(int from) {
  static char data[64 << 10];
  int to = other[from];
  if (!to)
    return;
  ssize_t n = recv(from, data, sizeof data, 0);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n <= 0 || send(to, data, n, MSG_NOSIGNAL) != n) {
    other[from] = other[to] = 0;
    close(from);
    close(to);
  }
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, to = a;
  a.sin_port = htons(atoi(argv[1]));
  to.sin_port = htons(atoi(argv[2]));
  if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096))
    return 1;
  ep = epoll_create1(0);
  watch(listener);
  for (struct epoll_event events[256];;) {
    int n = epoll_wait(ep, events, 256, -1);
    for (int i = 0; i < n; i++)
      if (events[i].data.fd == listener)
        take_all(listener, to);
      else
        pass(events[i].data.fd);
  }
}
