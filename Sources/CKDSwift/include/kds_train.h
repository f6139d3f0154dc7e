// Training: plain and with teachers. One call per step; the loop, files and progress are the caller's.
#ifndef KDS_TRAIN_H
#define KDS_TRAIN_H
#include <stdint.h>
#include "kds_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kds_trainer_s *kds_trainer;

/// A trainer for `student`, with any number of teachers (0 for plain training).
///
/// Options (JSON, unknown keys are errors):
/// {"optimizer": {"name": "sgd" | "adam" | "adamw", "lr", "momentum", "weight_decay", "nesterov",
///                "beta1", "beta2", "epsilon", "bias_lr_factor", "decay_bias_and_norm"},
///  "schedule": {"name": "constant" | "step" | "linear" | "cosine", "total_steps", "warmup_steps",
///               "warmup_start", "milestones": [steps], "gamma", "final_factor"},
///  "clip_norm": 0 = off, "seed", "method": {"parts": [{"name": "chen2017", "scale": 1, ...}]}}
/// Teachers are put in evaluation mode and never change. @since 0.1
int32_t kds_trainer_create(kds_detector student, const kds_detector *teachers, int32_t teacher_count,
                           const char *options_json, kds_trainer *out_trainer);
int32_t kds_trainer_release(kds_trainer trainer);
/// One step: teachers forward, student forward, losses, backward, optimizer. `teacher_batch` may be
/// NULL (the teachers see `batch`). The result, by the two-call convention, is a JSON object with
/// "loss", "lr", "grad_norm" and every term by name; it stays readable with kds_trainer_metrics.
/// Weights do not change when a loss or gradient is not finite: the call fails. @since 0.1
int32_t kds_trainer_step(kds_trainer trainer, kds_batch batch, kds_batch teacher_batch);
int32_t kds_trainer_metrics(kds_trainer trainer, int64_t capacity, int64_t *out_needed, char *out_text);
/// First half of a step, for terms computed by the caller: runs the forward passes and gives taps
/// "student.NAME" (on the tape) and "teacher.NAME" (off it), and what they saw as "input.size",
/// "input.sizes", "input.scales", "input.boxes", "input.labels" and "teacher_input.…". @since 0.1
int32_t kds_trainer_forward(kds_trainer trainer, kds_batch batch, kds_batch teacher_batch,
                            kds_tensor_map *out_taps);
/// Second half: adds the caller's scalar losses (already weighted), walks back, updates. @since 0.1
int32_t kds_trainer_finish(kds_trainer trainer, const kds_tensor *losses, const char *names_json,
                           int32_t count);
/// Learned tensors that a caller's term owns, to be updated with the student's. @since 0.1
int32_t kds_trainer_add_parameter(kds_trainer trainer, const char *name, kds_tensor parameter);
/// Steps done; the schedule and the random streams follow it. @since 0.1
int32_t kds_trainer_step_count(kds_trainer trainer, int64_t *out_steps);
int32_t kds_trainer_set_step_count(kds_trainer trainer, int64_t steps);
/// Factor, from 0, on all that one part of the method adds to the coming steps. @since 0.1
int32_t kds_trainer_set_factor(kds_trainer trainer, int32_t part, double factor);
/// Everything but the student that a resumed run needs: optimizer state and connectors. @since 0.1
int32_t kds_trainer_state(kds_trainer trainer, kds_tensor_map *out_map);
/// Copies one entry of such a state back. Names from an earlier state are created. @since 0.1
int32_t kds_trainer_load(kds_trainer trainer, const char *name, kds_tensor value);
/// Connectors and terms as JSON: what is compared with what, and how shapes are matched. @since 0.1
int32_t kds_trainer_report(kds_trainer trainer, int64_t capacity, int64_t *out_needed, char *out_text);

#ifdef __cplusplus
}
#endif
#endif
