// One OpenMP thread for the calls of a scope. A library built on OpenMP would start a region of its own
// inside each block that Tandem's pool takes. The number of threads it asks for belongs to the calling thread
// in OpenMP, so it is set to 1 and put back. The two functions are looked up at run time: a library built on
// another runtime brings no OpenMP along, and Tandem does not link to one. Any thread.
#pragma once

namespace tandem::ops {

class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace tandem::ops
