"""The names that TensorRT's Python bindings have, in 10.13.3.9 and in 11.4.0.106 alike: what our code may use.

Listed with `dir` from the wheels tensorrt_cu12_bindings of both versions. Each class is followed by its page at
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

from __future__ import annotations

TABLE = """
Builder infer/Core/Builder.html
  build_engine_with_config build_serialized_network build_serialized_network_to_stream create_builder_config
  create_network create_optimization_profile error_recorder get_plugin_registry gpu_allocator is_network_supported
  logger max_DLA_batch_size max_threads num_DLA_cores reset
IBuilderConfig infer/Core/BuilderConfig.html
  DLA_core add_optimization_profile avg_timing_iterations builder_optimization_level can_run_on_DLA clear_flag
  create_timing_cache default_device_type engine_capability flags get_device_type get_flag get_memory_pool_limit
  get_preview_feature get_tactic_sources get_timing_cache hardware_compatibility_level is_device_type_set
  l2_limit_for_tiling max_aux_streams max_num_tactics num_optimization_profiles plugins_to_serialize profile_stream
  profiling_verbosity progress_monitor remote_auto_tuning_config reset reset_device_type runtime_platform
  set_device_type set_flag set_memory_pool_limit set_preview_feature set_tactic_sources set_timing_cache
  tiling_optimization_level
INetworkDefinition infer/Graph/Network.html
  add_activation add_assertion add_cast add_concatenation add_constant add_convolution_nd add_cumulative
  add_deconvolution_nd add_dequantize add_dynamic_quantize add_einsum add_elementwise add_fill add_gather
  add_gather_v2 add_grid_sample add_identity add_if_conditional add_input add_loop add_lrn add_matrix_multiply
  add_nms add_non_zero add_normalization add_one_hot add_padding_nd add_parametric_relu add_plugin add_plugin_v2
  add_plugin_v3 add_pooling_nd add_quantize add_ragged_softmax add_reduce add_resize add_reverse_sequence add_scale
  add_scale_nd add_scatter add_select add_shape add_shuffle add_slice add_softmax add_squeeze add_topk add_unary
  add_unsqueeze are_weights_marked_refittable builder error_recorder flags get_flag get_input get_layer get_output
  has_implicit_batch_dimension is_debug_tensor mark_debug mark_output mark_output_for_shapes
  mark_unfused_tensors_as_debug_tensors mark_weights_refittable name num_inputs num_layers num_outputs remove_tensor
  set_weights_name unmark_debug unmark_output unmark_output_for_shapes unmark_unfused_tensors_as_debug_tensors
  unmark_weights_refittable
OnnxParser parsers/Onnx/pyOnnx.html
  clear_errors clear_flag flags get_error get_flag get_layer_output_tensor get_subgraph_nodes
  get_used_vc_plugin_libraries is_subgraph_supported load_initializer load_model_proto num_errors num_subgraphs
  parse parse_from_file parse_model_proto set_flag supports_model_v2 supports_operator
ParserError parsers/Onnx/pyOnnx.html
  code desc file func line local_function_stack local_function_stack_size node node_name node_operator
IOptimizationProfile infer/Core/OptimizationProfile.html
  extra_memory_target get_shape get_shape_input set_shape set_shape_input
Runtime infer/Core/Runtime.html
  DLA_core deserialize_cuda_engine engine_host_code_allowed error_recorder get_plugin_registry gpu_allocator
  load_runtime logger max_threads num_DLA_cores tempfile_control_flags temporary_directory
ICudaEngine infer/Core/Engine.html
  create_engine_inspector create_execution_context create_runtime_config create_serialization_config
  device_memory_size_v2 engine_capability error_recorder get_device_memory_size_for_profile_v2
  get_tensor_bytes_per_component get_tensor_components_per_element get_tensor_dtype get_tensor_format
  get_tensor_format_desc get_tensor_location get_tensor_mode get_tensor_name get_tensor_profile_shape
  get_tensor_profile_values get_tensor_shape get_tensor_vectorized_dim get_weight_streaming_automatic_budget
  hardware_compatibility_level is_debug_tensor is_shape_inference_io name num_aux_streams num_io_tensors num_layers
  num_optimization_profiles profiling_verbosity refittable serialize serialize_with_config streamable_weights_size
  tactic_sources weight_streaming_budget_v2 weight_streaming_scratch_memory_size
IExecutionContext infer/Core/ExecutionContext.html
  active_optimization_profile all_binding_shapes_specified debug_sync device_memory engine enqueue_emits_profile
  error_recorder execute_async_v3 execute_v2 get_debug_listener get_debug_state get_input_consumed_event
  get_max_output_size get_output_allocator get_runtime_config get_tensor_address get_tensor_shape get_tensor_strides
  infer_shapes name nvtx_verbosity persistent_cache_limit profiler report_to_profiler set_all_tensors_debug_state
  set_aux_streams set_debug_listener set_device_memory set_input_consumed_event set_input_shape
  set_optimization_profile_async set_output_allocator set_tensor_address set_tensor_debug_state temporary_allocator
  unfused_tensors_debug_state update_device_memory_size_for_shapes
ExecutionContextAllocationStrategy infer/Core/ExecutionContext.html
  ON_PROFILE_CHANGE STATIC USER_MANAGED name value
ITimingCache infer/Core/TimingCache.html
  combine query queryKeys reset serialize update
ILogger infer/Core/Logger.html
  ERROR INFO INTERNAL_ERROR Severity VERBOSE WARNING log
IProgressMonitor infer/Core/ProgressMonitor.html
  phase_finish phase_start step_complete
BuilderFlag infer/Core/BuilderConfig.html
  DEBUG DIRECT_IO DISABLE_COMPILATION_CACHE DISABLE_TIMING_CACHE DISTRIBUTIVE_INDEPENDENCE EDITABLE_TIMING_CACHE
  ERROR_ON_TIMING_CACHE_MISS EXCLUDE_LEAN_RUNTIME GPU_FALLBACK MONITOR_MEMORY REFIT REFIT_IDENTICAL REFIT_INDIVIDUAL
  SAFETY_SCOPE SPARSE_WEIGHTS STRICT_NANS STRIP_PLAN TF32 VERSION_COMPATIBLE WEIGHT_STREAMING name value
MemoryPoolType infer/Core/BuilderConfig.html
  DLA_GLOBAL_DRAM DLA_LOCAL_DRAM DLA_MANAGED_SRAM TACTIC_DRAM TACTIC_SHARED_MEMORY WORKSPACE name value
NetworkDefinitionCreationFlag infer/Core/Builder.html
  PREFER_AOT_PYTHON_PLUGINS PREFER_JIT_PYTHON_PLUGINS STRONGLY_TYPED name value
TensorIOMode infer/Core/Engine.html
  INPUT NONE OUTPUT name value
tensorrt index.html
  Builder BuilderFlag ExecutionContextAllocationStrategy IBuilderConfig ICudaEngine IExecutionContext ILogger
  INetworkDefinition IOptimizationProfile IProgressMonitor ITimingCache MemoryPoolType NetworkDefinitionCreationFlag
  OnnxParser ParserError Runtime TensorIOMode __version__
"""


def parsed(table: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    kind = ""
    for line in table.strip().splitlines():
        if line.startswith(" "):
            found[kind] |= set(line.split())
        else:
            kind, _page = line.split()
            found[kind] = set()
    return found


NAMES = parsed(TABLE)
"""Class -> its public members."""
