/*
 * The only program of a lab guest: /init of its initrd.
 *
 * It loads the modules of /modules, then writes one record per beat to /dev/vda: slot (sequence modulo SLOTS) of a ring of 512-byte
 * slots. The layout is described in src/heartbeat.rs; keep both in step. It powers off on the ACPI button, unless the kernel's command
 * line holds the word "deaf". "beat=MS" sets the period.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOT 512
#define SLOTS 4096
#define INPUTS 8

struct record {
	char magic[8];
	uint64_t boot;      /* random, one per boot */
	uint64_t sequence;  /* counts on over boots */
	uint64_t first;     /* sequence of this boot's first beat */
	uint64_t monotonic; /* ns, this guest's clock: it stands while the guest is paused */
	uint64_t realtime;  /* ns since 1970 as the guest believes */
	uint64_t errors;    /* writes that failed in this boot */
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

int main(void)
{
	static char line[4096];
	struct pollfd inputs[INPUTS];
	struct record *r = (struct record *)slot;
	uint64_t period = 20, said = 0;
	int disk = -1, count, deaf;

	mount("proc", "/proc", "proc", 0, "");
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, line, sizeof line - 1) < 0)
		line[0] = 0;
	close(fd);
	deaf = strstr(line, "deaf") != NULL;
	mount("sysfs", "/sys", "sysfs", 0, "");
	if (strstr(line, "beat="))
		period = strtoull(strstr(line, "beat=") + 5, NULL, 10);
	if (period < 1 || period > 10000)
		period = 20;
	period *= 1000000;

	load_modules();
	for (int i = 0; i < 2000 && disk < 0; i++) {
		disk = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
		if (disk < 0)
			usleep(5000);
	}
	if (disk < 0)
		printf("init: no /dev/vda: %s\n", strerror(errno));
	count = open_inputs(inputs);

	memcpy(r->magic, "KVMHABT1", 8);
	/* The kernel's generator may not be ready so early; the clocks make the difference then. */
	if (getrandom(&r->boot, sizeof r->boot, GRND_INSECURE) < 0)
		r->boot = 0;
	r->boot ^= now(CLOCK_REALTIME) * 0x9e3779b97f4a7c15ULL ^ __builtin_ia32_rdtsc();
	r->first = r->sequence = newest(disk) + 1;
	r->period = period;
	printf("init: boot %016llx first %llu period %llu ms%s inputs %d\n", (unsigned long long)r->boot,
	       (unsigned long long)r->first, (unsigned long long)(period / 1000000), deaf ? " deaf" : "", count);

	/* Whoever doubts the guest's clock finds its kind in the console log. */
	fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
	memset(line, 0, sizeof line);
	if (fd >= 0 && read(fd, line, 40) > 0)
		printf("init: clock %s", line);
	close(fd);

	for (uint64_t next = now(CLOCK_MONOTONIC);;) {
		r->monotonic = now(CLOCK_MONOTONIC);
		r->realtime = now(CLOCK_REALTIME);
		r->check = check(r);
		if (pwrite(disk, slot, SLOT, (off_t)(r->sequence % SLOTS) * SLOT) == SLOT)
			r->sequence++;
		else
			r->errors++;
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
			if (ppoll(inputs, (nfds_t)count, &left, NULL) > 0 && button_pressed(inputs, count) && !deaf) {
				printf("init: power button\n");
				sync();
				reboot(RB_POWER_OFF);
			}
		}
	}
}
