// Package filelock has locks among processes and hosts that share a folder. A
// lock is a lease: it can be lost, and its holder can see that.
//
// A lock is a folder of numbered files, its generations. The highest number has
// the lock. Whoever wants it
//
//   - reads the highest generation n, and waits while it may not be passed;
//   - makes a temporary file, takes the kernel's lock on it, writes a record into
//     it (token, TTL, host) and links it as n + 1, which one process only can do;
//   - looks whether n is still what it was, since somebody may have removed or
//     replaced the folder, and whether n + 1 is the highest;
//   - removes the ones below.
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
// A host is a boot of a kernel and a mounted file system: a kernel's lock says
// nothing about another kernel's, nor about one taken through another mount of
// the same network file system. Where there is no boot ID, no lock of the kernel
// or no second name for a file, the heartbeat alone decides. So it does on Windows: there a lock
// outlives its holder's death for a TTL.
//
// Nothing is flushed to the disk: after the crash of a host nobody on it holds a
// lock. Every write ends with a close, upon which network file systems send it.
//
// No lock on a file system can keep a holder that is stopped between its last
// look and its write from writing. Look before each write and after it.
package filelock
