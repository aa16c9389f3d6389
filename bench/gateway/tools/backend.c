// backend PORT: the backend of the bench. It answers every request without a body by the same 1 KiB, on one thread, with
// one epoll, and keeps no more of a connection than how far the end of a head has been seen.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BODY = 1024, MAX_FD = 65536, MAX_ANSWERS = 64 };

static char answer[BODY + 256];
static size_t answer_size;
static char answers[MAX_ANSWERS * sizeof answer]; // the answer again and again, so that a pipeline takes one call
static unsigned char ended[MAX_FD];               // how much of "\r\n\r\n" has been seen, by descriptor

// heads returns how many heads end within the n bytes that came on fd.
static int heads(int fd, const char *p, size_t n) {
  int count = 0, state = ended[fd];
  for (size_t i = 0; i < n; i++) {
    char want = state % 2 ? '\n' : '\r';
    state = p[i] == want ? state + 1 : p[i] == '\r';
    if (state == 4) {
      count++;
      state = 0;
    }
  }
  ended[fd] = state;
  return count;
}

// serve reads once and answers; it returns 0 when the connection has ended. An answer fits the socket's buffer, or the
// connection ends: the bench's clients read what they asked for.
static int serve(int fd) {
  static char in[64 << 10];
  ssize_t n = recv(fd, in, sizeof in, 0);
  if (n <= 0)
    return n < 0 && errno == EAGAIN;
  for (int left = heads(fd, in, n); left > 0;) {
    int now = left < MAX_ANSWERS ? left : MAX_ANSWERS;
    if (send(fd, answers, now * answer_size, MSG_NOSIGNAL) != (ssize_t)(now * answer_size))
      return 0;
    left -= now;
  }
  return 1;
}

static void take_all(int listener, int ep) {
  for (int fd, on = 1; (fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0;) {
    if (fd >= MAX_FD) {
      close(fd);
      continue;
    }
    ended[fd] = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
  }
}

int main(int argc, char **argv) {
  if (argc != 2)
    return 2;
  signal(SIGPIPE, SIG_IGN);
  answer_size = snprintf(answer, sizeof answer,
                         "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
                         "Cache-Control: max-age=3600\r\nContent-Length: %d\r\n\r\n",
                         BODY);
  memset(answer + answer_size, 'x', BODY);
  answer_size += BODY;
  for (int i = 0; i < MAX_ANSWERS; i++)
    memcpy(answers + i * answer_size, answer, answer_size);

  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) {
    perror("backend");
    return 1;
  }
  int ep = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[512];
  epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    int n = epoll_wait(ep, events, 512, -1);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == listener)
        take_all(listener, ep);
      else if (!serve(fd))
        close(fd);
    }
  }
}
