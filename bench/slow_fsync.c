/* A slower disk: every fsync and fdatasync takes BENCH_FSYNC_US microseconds more. LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static void wait_more(void)
{
	const char *more = getenv("BENCH_FSYNC_US");
	long us = more ? atol(more) : 0;
	struct timespec left = {us / 1000000, us % 1000000 * 1000};

	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
}

int fsync(int file)
{
	static int (*own)(int);

	if (!own)
		own = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	int result = own(file);
	int error = errno;
	wait_more();
	errno = error;
	return result;
}

int fdatasync(int file)
{
	static int (*own)(int);

	if (!own)
		own = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	int result = own(file);
	int error = errno;
	wait_more();
	errno = error;
	return result;
}
