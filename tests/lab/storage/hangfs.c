/*
 * hangfs CONTROL SOURCE TARGET: shows the folder SOURCE at TARGET, as shared storage that can hang and fail.
 *
 * Before each request the file CONTROL is read:
 *	(empty, or no file)	the request is passed on
 *	hold | holdw		it is not answered for as long as this stands (holdw: only if it changes something)
 *	err N | errw N		it fails with the error number N (errw: only if it changes something)
 *	delay MS		it is passed on MS milliseconds later
 * A request that was held is carried out when the hold ends: that is how a write of a guest that was given up comes late.
 *
 * Whoever waits for a request that this program has taken and does not answer cannot be killed (fs/fuse/dev.c, request_wait_answer). A
 * program that is stopped does not do: it leaves the requests in the queue, and their callers can be killed.
 *
 * There is no lock operation on purpose: the kernel then keeps the locks itself, one table for each mount. With one, libfuse's own table
 * keeps the locks of files that were closed by another process.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char *control;
static int source;

/* Waits or fails as CONTROL says; 0 lets the request pass. */
static int gate(int changes)
{
	int delayed = 0;
	for (;;) {
		char text[64] = "", word[16] = "";
		int number = 0;
		int fd = open(control, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			ssize_t length = read(fd, text, sizeof text - 1);
			text[length > 0 ? length : 0] = 0;
			close(fd);
		}
		sscanf(text, "%15s %d", word, &number);
		if (!strcmp(word, "err") || (!strcmp(word, "errw") && changes))
			return number > 0 ? -number : -EIO;
		if (!strcmp(word, "delay") && !delayed) {
			delayed = 1;
			usleep((useconds_t)number * 1000);
		} else if (strcmp(word, "hold") && (strcmp(word, "holdw") || !changes)) {
			return 0;
		} else {
			usleep(10000);
		}
	}
}

/* The paths of libfuse begin with a slash. */
static const char *below(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static int done(long result)
{
	return result < 0 ? -errno : 0;
}

#define PASS(changes)                                                                                                                          \
	do {                                                                                                                                   \
		int refused = gate(changes);                                                                                                   \
		if (refused)                                                                                                                   \
			return refused;                                                                                                        \
	} while (0)

static int do_getattr(const char *path, struct stat *about, struct fuse_file_info *file)
{
	PASS(0);
	return done(file ? fstat((int)file->fh, about) : fstatat(source, below(path), about, AT_SYMLINK_NOFOLLOW));
}

static int do_access(const char *path, int mode)
{
	PASS(0);
	return done(faccessat(source, below(path), mode, 0));
}

static int do_readlink(const char *path, char *text, size_t size)
{
	PASS(0);
	ssize_t length = readlinkat(source, below(path), text, size - 1);
	if (length >= 0)
		text[length] = 0;
	return done(length);
}

static int do_readdir(const char *path, void *into, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *file,
		      enum fuse_readdir_flags flags)
{
	(void)offset, (void)file, (void)flags;
	PASS(0);
	int fd = openat(source, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	if (!folder)
		return -errno;
	for (struct dirent *entry; (entry = readdir(folder));) {
		struct stat about = { .st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12 };
		fill(into, entry->d_name, &about, 0, 0);
	}
	closedir(folder);
	return 0;
}

static int do_mkdir(const char *path, mode_t mode)
{
	PASS(1);
	return done(mkdirat(source, below(path), mode));
}

static int do_unlink(const char *path)
{
	PASS(1);
	return done(unlinkat(source, below(path), 0));
}

static int do_rmdir(const char *path)
{
	PASS(1);
	return done(unlinkat(source, below(path), AT_REMOVEDIR));
}

static int do_symlink(const char *target, const char *path)
{
	PASS(1);
	return done(symlinkat(target, source, below(path)));
}

static int do_rename(const char *from, const char *to, unsigned int flags)
{
	PASS(1);
	return done(renameat2(source, below(from), source, below(to), flags));
}

static int do_link(const char *from, const char *to)
{
	PASS(1);
	return done(linkat(source, below(from), source, below(to), 0));
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *file)
{
	(void)file;
	PASS(1);
	return done(fchmodat(source, below(path), mode, 0));
}

static int do_chown(const char *path, uid_t user, gid_t group, struct fuse_file_info *file)
{
	(void)file;
	PASS(1);
	return done(fchownat(source, below(path), user, group, AT_SYMLINK_NOFOLLOW));
}

static int do_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *file)
{
	(void)file;
	PASS(1);
	return done(utimensat(source, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *file)
{
	PASS(1);
	if (file)
		return done(ftruncate((int)file->fh, size));
	int fd = openat(source, below(path), O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int result = done(ftruncate(fd, size));
	close(fd);
	return result;
}

static int opened(int fd, struct fuse_file_info *file)
{
	if (fd >= 0)
		file->fh = (uint64_t)fd;
	return done(fd);
}

/* The kernel has dealt with O_DIRECT; passed on, it would ask for aligned buffers here. What was written must be on the disk all the same. */
static int flags_below(int flags)
{
	return (flags & ~O_DIRECT) | O_CLOEXEC;
}

static int do_open(const char *path, struct fuse_file_info *file)
{
	PASS(file->flags & O_TRUNC);
	return opened(openat(source, below(path), flags_below(file->flags)), file);
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *file)
{
	PASS(1);
	return opened(openat(source, below(path), flags_below(file->flags), mode), file);
}

static int do_read(const char *path, char *into, size_t size, off_t offset, struct fuse_file_info *file)
{
	(void)path;
	PASS(0);
	ssize_t length = pread((int)file->fh, into, size, offset);
	return length < 0 ? -errno : (int)length;
}

static int do_write(const char *path, const char *from, size_t size, off_t offset, struct fuse_file_info *file)
{
	(void)path;
	PASS(1);
	ssize_t length = pwrite((int)file->fh, from, size, offset);
	return length < 0 ? -errno : (int)length;
}

static int do_fsync(const char *path, int data_only, struct fuse_file_info *file)
{
	(void)path;
	PASS(1);
	return done(data_only ? fdatasync((int)file->fh) : fsync((int)file->fh));
}

static int do_fallocate(const char *path, int mode, off_t offset, off_t length, struct fuse_file_info *file)
{
	(void)path;
	PASS(1);
	return done(fallocate((int)file->fh, mode, offset, length));
}

static off_t do_lseek(const char *path, off_t offset, int whence, struct fuse_file_info *file)
{
	(void)path;
	PASS(0);
	off_t at = lseek((int)file->fh, offset, whence);
	return at < 0 ? -errno : at;
}

static int do_statfs(const char *path, struct statvfs *about)
{
	(void)path;
	PASS(0);
	return done(fstatvfs(source, about));
}

/* The answer to close(); nothing is waited for here, or nothing that has such a file open could end even when all its requests are done. */
static int do_release(const char *path, struct fuse_file_info *file)
{
	(void)path;
	close((int)file->fh);
	return 0;
}

/* Nothing may be answered out of a cache: what is held is to be noticed at once, and another node may have changed it. */
static void *do_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
	(void)connection;
	config->use_ino = 1;
	config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
	return NULL;
}

static const struct fuse_operations operations = {
	.init = do_init,	 .getattr = do_getattr,	  .access = do_access,	     .readlink = do_readlink, .readdir = do_readdir,
	.mkdir = do_mkdir,	 .unlink = do_unlink,	  .rmdir = do_rmdir,	     .symlink = do_symlink,   .rename = do_rename,
	.link = do_link,	 .chmod = do_chmod,	  .chown = do_chown,	     .utimens = do_utimens,   .truncate = do_truncate,
	.open = do_open,	 .create = do_create,	  .read = do_read,	     .write = do_write,	      .fsync = do_fsync,
	.fallocate = do_fallocate, .lseek = do_lseek,	  .statfs = do_statfs,	     .release = do_release,
};

int main(int count, char **words)
{
	if (count != 4) {
		fprintf(stderr, "usage: hangfs CONTROL SOURCE TARGET\n");
		return 2;
	}
	control = words[1];
	source = open(words[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (source < 0) {
		perror(words[2]);
		return 1;
	}
	umask(0);
	/* libvirt takes fuse.glusterfs for storage that all hosts share, and no other kind of FUSE. */
	char *arguments[] = { "hangfs", "-f", "-o", "subtype=glusterfs,fsname=hangfs,allow_other,default_permissions", words[3], NULL };
	return fuse_main(5, arguments, &operations, NULL);
}
