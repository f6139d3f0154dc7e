// The few entry points of libgomp that the engine calls. Declared by hand: clang does not ship gcc's omp.h.
#ifndef KDS_COPENMP_H
#define KDS_COPENMP_H

extern void GOMP_parallel(void (*fn)(void *), void *data, unsigned num_threads, unsigned flags);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);
extern int omp_get_max_threads(void);
extern int omp_in_parallel(void);
extern void omp_set_num_threads(int count);
extern int omp_get_num_procs(void);

/// Depth of `Tape.withoutGrad` on the calling thread; Swift has no thread-local attribute.
int *kds_no_grad_depth(void);

/// Depth of `Precision.withHalf` on the calling thread.
int *kds_half_depth(void);

#endif
