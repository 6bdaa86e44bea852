// Package filelock has locks among processes and hosts that share a folder. A
// lock is a lease: it can be lost, and its holder can see that.
//
// A lock is a folder of numbered files, its generations. The highest number has
// the lock. Whoever wants it
//
//   - writes a record (token, TTL, host) into a temporary file in the lock's
//     folder and takes the kernel's lock on that file, before it has a number;
//   - reads the highest generation n, and waits while it may not be passed;
//   - links the file as n + 1, which one process only can do;
//   - looks whether it is the highest, and removes the ones below.
//
// Generation n may be passed when its record says free; when the kernel's lock
// on it is free and its host is ours, so that its holder has died; and when its
// content has not changed for the TTL that it names, by the clock of the one who
// waits: a holder writes another number into it three times a TTL. What may be
// passed once may be passed for ever, since a holder whose own clock says that
// it wrote nothing for most of its TTL counts itself as lost. An unlock writes
// "free" and leaves the file, so that numbers never fall.
//
// So the death of a holder frees its lock at once on its own host and after a
// TTL on others; a holder that is stopped is replaced after its TTL, and sees it
// when it goes on; and processes with different TTLs exclude each other. A file
// that is empty, cut, garbled or no file at all is passed when it has not changed
// for the TTL of the one who waits. The time that files carry plays no part.
//
// The temporary file ties what was read to what is linked: when somebody removed
// or replaced the lock's folder in between, the link finds no file to link.
//
// A host is a boot of a kernel and a mounted file system: a kernel's lock says
// nothing about another kernel's, nor about one taken through another mount of
// the same network file system. Where there is no boot ID or no lock of the
// kernel, the heartbeat alone decides. So it does on file systems without hard
// links, where generations are made with O_EXCL in place of a link.
//
// Nothing is flushed to the disk: after the crash of a host nobody on it holds a
// lock. Every write ends with a close, upon which network file systems send it.
//
// No lock on a file system can keep a holder that is stopped between its last
// look and its write from writing. Look before each write and after it.
package filelock
