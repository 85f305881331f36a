"""What other tools call the options of the scripts, for the advice on an unknown one.

Names of transformers' example scripts and its `TrainingArguments`, of x-transformers, MDLM, LLaDA
and dLLM. A name may mean different things to different scripts, so it is paired with every option
that it can mean, and a script suggests those that it has.
"""

from collections.abc import Collection

# Our option, with its value where the other name includes one, and the other names.
_NAMES = {
    "encoder": "model model_name model_name_or_path model_id pretrained_model_name_or_path",
    "model": "encoder model_name model_name_or_path model_id checkpoint ckpt checkpoint_path",
    "tokenizer": "tokenizer_name tokenizer_name_or_path tokenizer_path",
    "from_scratch": "config_name config_overrides model_type",
    "revision": "model_revision",
    "attn_implementation": "attention attn attn_impl use_flash_attention_2 flash_attention",
    "dataset": "train_file train_data data data_path data_dir dataset_name dataset_path corpus "
    "input_file test_file",
    "dataset_config": "dataset_config_name subset",
    "eval_dataset": "validation_file eval_file valid_file test_file dev_file",
    "validation_fraction": "validation_split_percentage val_split test_size",
    "train_split": "split",
    "eval_split": "validation_split",
    "split": "eval_split test_split train_split",
    "text_column": "text_column_name dataset_text_field text_field column",
    "messages_column": "conversation_column chat_column messages",
    "dataset_probs": "data_mixture mixture_weights probabilities dataset_weights",
    "shuffle_buffer": "buffer_size shuffle_buffer_size",
    "group_by_length": "length_grouped length_grouped_batches",
    "max_length": "block_size max_seq_length max_seq_len seq_length seq_len sequence_length "
    "model_max_length context_length max_len",
    "pack": "packing group_texts wrap",
    "num_proc": "preprocessing_num_workers dataset_num_proc",
    "num_workers": "dataloader_num_workers",
    "output_dir": "output out_dir save_dir output_path run_dir",
    "output_file": "output out output_path output_dir out_dir",
    "optim": "optimizer optimizer_name optimizer_type",
    "learning_rate": "lr max_lr peak_lr",
    "lr_scheduler_type": "lr_scheduler scheduler lr_schedule",
    "warmup_steps": "warmup warmup_ratio num_warmup_steps lr_warmup_steps",
    "decay_steps": "num_decay_steps cooldown cooldown_steps lr_decay_iters warmdown_ratio",
    "min_lr_rate": "min_lr min_lr_ratio lr_scheduler_kwargs final_lr_frac",
    "num_train_epochs": "epochs num_epochs n_epochs max_epochs",
    "max_steps": "steps num_steps max_train_steps train_steps total_steps num_updates iterations",
    "per_device_batch_size": "batch_size train_batch_size per_device_train_batch_size "
    "per_gpu_train_batch_size micro_batch_size bs",
    "batch_size": "per_device_eval_batch_size eval_batch_size per_device_batch_size bs",
    "eval_batch_size": "per_device_eval_batch_size",
    "gradient_accumulation_steps": "grad_accum gradient_accumulation accumulate_grad_batches "
    "grad_accum_steps accumulation_steps",
    "max_grad_norm": "grad_clip gradient_clip_val clip_grad_norm grad_norm_clip",
    "layer_decay": "layerwise_lr_decay layer_lr_decay llrd lr_layer_decay",
    "freeze": "freeze_embeddings freeze_layers freeze_encoder frozen unfreeze freeze_base_model",
    "on_nonfinite skip": "skip_nan_grads skip_nonfinite logging_nan_inf_filter",
    "on_nonfinite": "detect_anomaly nan_policy terminate_on_nan",
    "lora_r": "lora lora_rank use_lora use_peft peft_r rank",
    "lora_target_modules": "target_modules lora_modules",
    "lora_modules_to_save": "modules_to_save",
    "patience": "early_stopping_patience early_stopping early_stop_patience",
    "load_best_model_at_end": "load_best_at_end load_best_model",
    "loss_weighting": "loss_weight_type weighting loss_weight path_weight",
    "clip_weights": "clip_range clip_search sampling_eps_min sampling_eps_max",
    "torch_compile": "compile use_compile compile_model",
    "torch_compile_backend": "dynamo_backend compile_backend torchdynamo",
    "ema_decay": "ema ema_beta ema_rate use_ema",
    "mixed_precision bf16": "bf16",
    "mixed_precision fp16": "fp16 amp half",
    "mixed_precision": "precision dtype torch_dtype",
    "use_cpu": "no_cuda cpu device",
    "log_every": "logging_steps log_interval log_steps log_every_n_steps",
    "log_with": "report_to logger tracker",
    "eval_texts": "num_eval_samples sample_every num_samples_to_log log_samples",
    "eval_prompts": "sample_prompts prompts eval_prompt",
    "dry_run": "dryrun plan estimate",
    "eval_every": "eval_steps eval_interval evaluation_steps val_check_interval eval_strategy",
    "checkpoint_every": "save_steps save_interval checkpointing_steps save_strategy save_every",
    "keep_checkpoints": "save_total_limit",
    "resume_from_checkpoint": "resume resume_from resume_training",
    "overwrite_output_dir": "overwrite",
    "num_examples": "max_eval_samples limit max_samples",
    "eval_examples": "max_eval_samples",
    "hub_model_id": "repo_id hub_repo_id",
    "hub_private_repo": "private hub_private",
    "repo_id": "hub_model_id repo hub_repo_id",
    "private": "hub_private_repo",
    "branch": "revision",
    "text": "prompt prompts input_text",
    "input_file": "prompt_file prompts_file dataset data_path input_path",
    "samples_per_part": "records_per_chunk rows_per_file shard_size",
    "num_samples": "num_return_sequences n_samples num_texts",
    "max_new_tokens": "length max_length gen_length num_tokens max_tokens",
    "block_length": "block_size stride_length",
    "cache_refresh_interval": "gen_interval_steps",
    "use_cache": "dual_cache",
    "schedule": "noise noise_schedule mask_schedule scheduler",
    "order": "remasking",
    "guidance_scale": "cfg cfg_scale",
    "no_replace_prob": "mlm_probability",
    "random_token_prob": "random_replace_prob",
    "choice": "masking",
    "time_sampler": "importance_sampling schedule_sampler time_sampling t_sampler "
    "antithetic_sampling",
}


def options_for(name: str, known: Collection[str]) -> list[str]:
    """Name the options, with a value where one belongs to it, that another tool's name may mean.

    Args:
        name: of an option that a script has not, with underscores.
        known: the script's own options.

    Returns:
        Those that the script has; none for a name that nobody uses.
    """
    meant = [option for option, names in _NAMES.items() if name in names.split()]
    return [option for option in meant if option.split()[0] in known]
