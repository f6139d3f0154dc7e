// CBLAS and the LAPACK routines inside OpenBLAS. Declared by hand: the include path of cblas.h
// differs between distributions, and LAPACK in OpenBLAS needs no separate liblapacke.
#ifndef KDS_COPENBLAS_SHIM_H
#define KDS_COPENBLAS_SHIM_H

enum { KDS_ROW_MAJOR = 101, KDS_NO_TRANSPOSE = 111, KDS_TRANSPOSE = 112 };

extern void cblas_dgemm(int order, int transA, int transB, int m, int n, int k, double alpha,
                        const double *a, int lda, const double *b, int ldb, double beta, double *c,
                        int ldc);
extern char *openblas_get_config(void);
extern void openblas_set_num_threads(int count);

/// Singular value decomposition, column-major, divide and conquer (LAPACK dgesdd).
extern void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda,
                    double *s, double *u, const int *ldu, double *vt, const int *ldvt,
                    double *work, const int *lwork, int *iwork, int *info);
/// Symmetric eigenproblem, column-major, divide and conquer (LAPACK dsyevd).
extern void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda,
                    double *w, double *work, const int *lwork, int *iwork, const int *liwork,
                    int *info);

#endif
