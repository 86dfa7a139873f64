/*
 * lab-clock.so: a clock of the node's own. The kernel has one clock for all nodes of a lab (time namespaces hold only the monotonic ones), so
 * what asks libc for the time of day gets it with the seconds added that stand in /run/lab-clock, eight bytes in the machine's order.
 * Every program of the node has it by /etc/ld.so.preload, and sees a jump at once. The monotonic clocks are left alone, as a jump does.
 *
 * What waits until a time of day waits until that time by the machine's clock: it would not wake up otherwise. A wait that has begun before a
 * jump is not changed by it, a real one would be; nor is the time of the boot in /proc/stat.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none;
static const volatile int64_t *offset = &none;

__attribute__((constructor)) static void look(void)
{
	int fd = open("/run/lab-clock", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	void *page = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (page != MAP_FAILED)
		offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	long result = syscall(SYS_clock_gettime, clock, time);
	if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		time->tv_sec += *offset;
	return (int)result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
	long result = syscall(SYS_gettimeofday, time, zone);
	if (!result)
		time->tv_sec += *offset;
	return (int)result;
}

time_t time(time_t *result)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (result)
		*result = now.tv_sec;
	return now.tv_sec;
}

static struct timespec of_the_machine(const struct timespec *until)
{
	return (struct timespec){ .tv_sec = until->tv_sec - *offset, .tv_nsec = until->tv_nsec };
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
	/* The bit that pthread_condattr_setclock leaves (nptl/pthreadP.h, __condvar_get_private and its neighbours). */
	if (condition->__data.__wrefs & 2)
		return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, until);
	struct timespec real = of_the_machine(until);
	return pthread_cond_clockwait(condition, mutex, CLOCK_REALTIME, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
	struct timespec real = of_the_machine(until);
	return pthread_mutex_clocklock(mutex, CLOCK_REALTIME, &real);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
	struct timespec real = of_the_machine(until);
	return sem_clockwait(semaphore, CLOCK_REALTIME, &real);
}
