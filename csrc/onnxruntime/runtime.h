// What a custom operator needs of ONNX Runtime's C interface, declared by hand: no package ships its header. Its table of
// functions is only ever appended to, so that the positions below, those of version 17 (ONNX Runtime 1.17), hold in every
// later version.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtValue;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;
struct OrtCustomOp;

constexpr uint32_t kOrtVersion = 17;
constexpr int kOrtFail = 1, kOrtInvalidArgument = 2;  // OrtErrorCode
constexpr int kOrtFloat = 1;                          // ONNXTensorElementDataType

struct OrtApi {
  void* functions[276];

  template <class Function>
  Function* at(int position) const { return reinterpret_cast<Function*>(functions[position]); }

  auto create_status() const { return at<OrtStatus*(int code, const char* message)>(0); }
  auto create_domain() const { return at<OrtStatus*(const char* name, OrtCustomOpDomain** out)>(26); }
  auto add_op() const { return at<OrtStatus*(OrtCustomOpDomain*, const OrtCustomOp*)>(27); }
  auto add_domain() const { return at<OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)>(28); }
  auto mutable_data() const { return at<OrtStatus*(OrtValue*, void** out)>(51); }
  auto dimension_count() const { return at<OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t* out)>(61); }
  auto dimensions() const { return at<OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t* out, size_t count)>(62); }
  auto shape() const { return at<OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo** out)>(65); }
  auto attribute_float() const { return at<OrtStatus*(const OrtKernelInfo*, const char* name, float* out)>(85); }
  auto attribute_int() const { return at<OrtStatus*(const OrtKernelInfo*, const char* name, int64_t* out)>(86); }
  auto input() const { return at<OrtStatus*(const OrtKernelContext*, size_t index, const OrtValue** out)>(90); }
  auto output() const {
    return at<OrtStatus*(OrtKernelContext*, size_t index, const int64_t* sizes, size_t count, OrtValue** out)>(91);
  }
  auto release_shape() const { return at<void(OrtTensorTypeAndShapeInfo*)>(99); }
  auto attribute_ints() const {
    return at<OrtStatus*(const OrtKernelInfo*, const char* name, int64_t* out, size_t* size)>(163);
  }
  auto parallel_for() const {
    return at<OrtStatus*(const OrtKernelContext*, void (*body)(void*, size_t), size_t count, size_t batches, void*)>(274);
  }
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);   // 0: required
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t index);  // 0: the provider's own
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShape)(const OrtCustomOp*, OrtShapeInferContext*);
  void* later[8];  // versions and aliases, which newer runtimes look for: absent
};
