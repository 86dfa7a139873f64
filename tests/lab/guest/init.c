/*
 * The only program of a lab guest: /init of its initrd.
 *
 * It loads the modules of /modules, then writes one record per beat to /dev/vda: slot (sequence modulo SLOTS) of a ring of 512-byte
 * slots. The layout is described in src/heartbeat.rs; keep both in step. It powers off on the ACPI button, unless the kernel's command
 * line holds the word "deaf", and three seconds later with the word "linger". "beat=MS" sets the period. Where libvirt gave it a channel it is
 * also its own guest agent, as far as a ping needs one. A line on the console that says "mute" makes that silent, "hang" everything. "busy=MIB"
 * makes a second process change so much memory as fast as it can; what it finds changed by anybody else is counted as an error.
 * "address=A.B.C.D" gives the network card that address (/24), and makes another process serve it: port 7 gives back what it gets, port 8
 * says the checksum of the pattern that "pattern=MIB" has put into so much of its memory. See src/client.rs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOT 512
#define SLOTS 4096
#define INPUTS 8
#define PAGE 4096

struct record {
	char magic[8];
	uint64_t boot;      /* random, one per boot */
	uint64_t sequence;  /* counts on over boots */
	uint64_t first;     /* sequence of this boot's first beat */
	uint64_t monotonic; /* ns, this guest's clock: it stands while the guest is paused */
	uint64_t realtime;  /* ns since 1970 as the guest believes */
	uint64_t errors;    /* writes that failed in this boot, and pages of a busy guest that were not as it left them */
	uint64_t period;    /* ns */
	uint64_t check;     /* of the seven words after the magic: xor of each rotated left by its index, from CHECK_SEED */
};
#define CHECK_SEED 0x6b766d68616c6162ULL

static char ring[SLOT * SLOTS] __attribute__((aligned(4096)));
static char slot[SLOT] __attribute__((aligned(4096)));

static uint64_t now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t check(const struct record *r)
{
	const uint64_t word[7] = { r->boot, r->sequence, r->first, r->monotonic, r->realtime, r->errors, r->period };
	uint64_t sum = CHECK_SEED;
	for (int i = 0; i < 7; i++)
		sum ^= word[i] << (i + 1) | word[i] >> (63 - i);
	return sum;
}

/* Some modules need others: try again as long as a pass loads any. */
static void load_modules(void)
{
	char path[300];
	for (int loaded = 1; loaded;) {
		struct dirent *entry;
		DIR *folder = opendir("/modules");
		if (!folder)
			return;
		loaded = 0;
		while ((entry = readdir(folder))) {
			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof path, "/modules/%s", entry->d_name);
			int fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0) == 0) {
				unlink(path);
				loaded = 1;
			}
			close(fd);
		}
		closedir(folder);
	}
}

static int open_inputs(struct pollfd *inputs)
{
	char path[40];
	int count = 0;
	for (int i = 0; i < INPUTS; i++) {
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			inputs[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	return count;
}

static int button_pressed(struct pollfd *inputs, int count)
{
	struct input_event event;
	int pressed = 0;
	for (int i = 0; i < count; i++)
		while (inputs[i].revents && read(inputs[i].fd, &event, sizeof event) == sizeof event)
			pressed |= event.type == EV_KEY && event.code == KEY_POWER && event.value == 1;
	return pressed;
}

/* The guest agent's port: the first of a virtio-serial controller that can be opened. */
static int open_agent(void)
{
	char path[40];
	for (int controller = 0; controller < 4; controller++)
		for (int port = 1; port < 3; port++) {
			snprintf(path, sizeof path, "/dev/vport%dp%d", controller, port);
			int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
			if (fd >= 0)
				return fd;
		}
	return -1;
}

/* Answers what libvirt asks of an agent: to say a number after it (guest-sync), and that it is there (guest-ping). */
static void answer_agent(int fd)
{
	static char question[4096];
	char answer[100];
	ssize_t length = read(fd, question, sizeof question - 1);
	if (length <= 0)
		return;
	question[length] = 0;
	const char *id = strstr(question, "\"id\"");
	int said = 0;
	if (strstr(question, "guest-sync") && id && (id = strchr(id, ':')))
		said = snprintf(answer, sizeof answer, "%s{\"return\": %llu}\n", strstr(question, "delimited") ? "\xff" : "",
				strtoull(id + 1, NULL, 10));
	else if (strstr(question, "guest-ping"))
		said = snprintf(answer, sizeof answer, "{\"return\": {}}\n");
	if (said > 0 && write(fd, answer, (size_t)said) != said)
		printf("init: agent: %s\n", strerror(errno));
}

/* What a person, or a test, types on the console; does not return from "hang". */
static int told_to_be_mute(void)
{
	char line[80];
	ssize_t length = read(STDIN_FILENO, line, sizeof line - 1);
	line[length > 0 ? length : 0] = 0;
	if (strstr(line, "hang"))
		for (printf("init: hang\n");;)
			sleep(1000);
	if (!strstr(line, "mute"))
		return 0;
	printf("init: mute\n");
	return 1;
}

static uint64_t newest(int disk)
{
	uint64_t sequence = 0;
	if (pread(disk, ring, sizeof ring, 0) != sizeof ring)
		printf("init: ring not read: %s\n", strerror(errno));
	for (int i = 0; i < SLOTS; i++) {
		const struct record *r = (const struct record *)(ring + i * SLOT);
		if (!memcmp(r->magic, "KVMHABT1", 8) && r->check == check(r) && r->sequence > sequence)
			sequence = r->sequence;
	}
	return sequence;
}

/* Every page holds a word that only its number and the count of passes tell. */
static uint64_t word_of(uint64_t page, uint64_t pass)
{
	return (page + 1) * 0x9e3779b97f4a7c15ULL ^ pass;
}

/* Changes memory until the guest ends; counts in *wrong the pages that have changed by themselves. */
static void be_busy(uint64_t mib, volatile uint64_t *wrong)
{
	uint64_t pages = mib * 1024 * 1024 / PAGE;
	char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED) {
		printf("init: no %llu MiB to be busy with\n", (unsigned long long)mib);
		++*wrong;
		_exit(1);
	}
	for (uint64_t page = 0; page < pages; page++)
		*(volatile uint64_t *)(memory + page * PAGE) = word_of(page, 0);
	for (uint64_t pass = 1;; pass++)
		for (uint64_t page = 0; page < pages; page++) {
			volatile uint64_t *word = (volatile uint64_t *)(memory + page * PAGE);
			if (*word != word_of(page, pass - 1))
				++*wrong;
			*word = word_of(page, pass);
		}
}

/* Gives eth0 the address and takes it up. */
static int configure_card(const char *address)
{
	struct ifreq request = { .ifr_name = "eth0" };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), done;
	in->sin_family = AF_INET;
	done = inet_pton(AF_INET, address, &in->sin_addr) == 1 && ioctl(fd, SIOCSIFADDR, &request) == 0;
	in->sin_addr.s_addr = htonl(0xffffff00);
	done = done && ioctl(fd, SIOCSIFNETMASK, &request) == 0;
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	done = done && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
	close(fd);
	return done;
}

static int listen_at(uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fd, (struct sockaddr *)&in, sizeof in) < 0 || listen(fd, 8) < 0)
		printf("init: port %u: %s\n", port, strerror(errno));
	return fd;
}

static void echo(int fd)
{
	char some[4096];
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	for (ssize_t length; (length = read(fd, some, sizeof some)) > 0;)
		for (ssize_t done = 0, part; done < length; done += part)
			if ((part = write(fd, some + done, (size_t)(length - done))) <= 0)
				_exit(1);
}

/* The pattern: word i is word_of(i, 0); its checksum is src/client.rs's expected(). */
static void say_sum(int fd, const volatile uint64_t *pattern, uint64_t words)
{
	uint64_t sum = CHECK_SEED;
	for (uint64_t i = 0; i < words; i++)
		sum = (sum << 1 | sum >> 63) ^ pattern[i];
	dprintf(fd, "%016llx\n", (unsigned long long)sum);
}

/* Serves the network until the guest ends, each connection by a process of its own. */
static void serve(const char *address, uint64_t mib)
{
	uint64_t words = mib * 1024 * 1024 / sizeof(uint64_t);
	volatile uint64_t *pattern = words ? mmap(NULL, words * sizeof *pattern, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;
	if (pattern == MAP_FAILED)
		printf("init: no memory for a pattern\n");
	for (uint64_t i = 0; pattern != MAP_FAILED && i < words; i++)
		pattern[i] = word_of(i, 0);
	signal(SIGCHLD, SIG_IGN);
	if (!configure_card(address))
		printf("init: no address %s: %s\n", address, strerror(errno));
	struct pollfd ports[2] = { { .fd = listen_at(7), .events = POLLIN }, { .fd = listen_at(8), .events = POLLIN } };
	printf("init: serves %s\n", address);
	fflush(stdout);
	for (;;) {
		if (poll(ports, 2, -1) <= 0)
			continue;
		for (int i = 0; i < 2; i++) {
			int fd = ports[i].revents ? accept(ports[i].fd, NULL, NULL) : -1;
			if (fd >= 0 && fork() == 0) {
				if (i == 0)
					echo(fd);
				else if (pattern != MAP_FAILED)
					say_sum(fd, pattern, words);
				_exit(0);
			}
			if (fd >= 0)
				close(fd);
		}
	}
}

int main(void)
{
	static char line[4096];
	struct pollfd inputs[INPUTS + 2];
	struct record *r = (struct record *)slot;
	static char address[16];
	uint64_t period = 20, said = 0, busy = 0, pattern = 0, failed = 0;
	volatile uint64_t *wrong;
	int disk = -1, count, agent, deaf, linger, mute = 0;

	mount("proc", "/proc", "proc", 0, "");
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, line, sizeof line - 1) < 0)
		line[0] = 0;
	close(fd);
	deaf = strstr(line, "deaf") != NULL;
	linger = strstr(line, "linger") != NULL;
	mount("sysfs", "/sys", "sysfs", 0, "");
	if (strstr(line, "beat="))
		period = strtoull(strstr(line, "beat=") + 5, NULL, 10);
	if (period < 1 || period > 10000)
		period = 20;
	period *= 1000000;
	if (strstr(line, "busy="))
		busy = strtoull(strstr(line, "busy=") + 5, NULL, 10);
	if (strstr(line, "pattern="))
		pattern = strtoull(strstr(line, "pattern=") + 8, NULL, 10);
	if (strstr(line, "address="))
		sscanf(strstr(line, "address=") + 8, "%15[0-9.]", address);

	load_modules();
	for (int i = 0; i < 2000 && disk < 0; i++) {
		disk = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
		if (disk < 0)
			usleep(5000);
	}
	if (disk < 0)
		printf("init: no /dev/vda: %s\n", strerror(errno));
	count = open_inputs(inputs);
	agent = open_agent();
	inputs[count] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	inputs[count + 1] = (struct pollfd){ .fd = agent, .events = POLLIN };
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);

	memcpy(r->magic, "KVMHABT1", 8);
	/* The kernel's generator may not be ready so early; the clocks make the difference then. */
	if (getrandom(&r->boot, sizeof r->boot, GRND_INSECURE) < 0)
		r->boot = 0;
	r->boot ^= now(CLOCK_REALTIME) * 0x9e3779b97f4a7c15ULL ^ __builtin_ia32_rdtsc();
	r->first = r->sequence = newest(disk) + 1;
	r->period = period;
	printf("init: boot %016llx first %llu period %llu ms%s inputs %d%s\n", (unsigned long long)r->boot,
	       (unsigned long long)r->first, (unsigned long long)(period / 1000000), deaf ? " deaf" : "", count,
	       agent >= 0 ? " agent" : "");

	/* Whoever doubts the guest's clock finds its kind in the console log. */
	fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
	memset(line, 0, sizeof line);
	if (fd >= 0 && read(fd, line, 40) > 0)
		printf("init: clock %s", line);
	close(fd);

	/* Shared with the second process. */
	wrong = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (wrong == MAP_FAILED) {
		printf("init: no memory\n");
		return 1;
	}
	fflush(stdout);
	if (busy && fork() == 0)
		be_busy(busy, wrong);
	if (*address && fork() == 0)
		serve(address, pattern);

	for (uint64_t next = now(CLOCK_MONOTONIC);;) {
		r->monotonic = now(CLOCK_MONOTONIC);
		r->realtime = now(CLOCK_REALTIME);
		r->errors = failed + *wrong;
		r->check = check(r);
		if (pwrite(disk, slot, SLOT, (off_t)(r->sequence % SLOTS) * SLOT) == SLOT)
			r->sequence++;
		else
			failed++;
		uint64_t t = now(CLOCK_MONOTONIC);
		if (t - said >= 1000000000) {
			said = t;
			printf("beat %llu errors %llu\n", (unsigned long long)r->sequence, (unsigned long long)r->errors);
		}
		/* After a write that took long: go on from here, do not catch up. */
		next += period;
		if (next < t)
			next = t;
		for (; (t = now(CLOCK_MONOTONIC)) < next;) {
			struct timespec left = { (time_t)((next - t) / 1000000000), (long)((next - t) % 1000000000) };
			/* A descriptor of -1 is passed over. */
			if (ppoll(inputs, (nfds_t)count + 2, &left, NULL) <= 0)
				continue;
			if (inputs[count].revents & POLLIN && told_to_be_mute())
				mute = 1;
			if (inputs[count + 1].revents & POLLIN && !mute)
				answer_agent(agent);
			else if (inputs[count + 1].revents || inputs[count].revents & ~POLLIN)
				/* Nobody at the other end, or nobody who is listened to: that would be so all the time. */
				usleep(1000);
			if (button_pressed(inputs, count) && !deaf) {
				printf("init: power button\n");
				sync();
				if (linger)
					sleep(3);
				reboot(RB_POWER_OFF);
			}
		}
	}
}
